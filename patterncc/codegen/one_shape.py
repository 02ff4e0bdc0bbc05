"""The files of a package whose layers are of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from patterncc.analysis.verdict import Verdict
from patterncc.codegen.constants import Places, constants, mask_file, masks
from patterncc.codegen.docstring import docstring, set_docstring
from patterncc.codegen.index_map import index_map
from patterncc.codegen.package import GeneratedPackage, check_name
from patterncc.codegen.row_map import row_map
from patterncc.codegen.specialise import specialise
from patterncc.codegen.template import TemplateError, companions, templates
from patterncc.ir.plan import Plan

INDEX_MAPS = {"kernels/index_map.py": index_map, "kernels/row_map.py": row_map}


def specialise_shape(
    plan: Plan,
    about: str,
    promises: Mapping[str, Any] | None,
    source: str,
    kv: Iterable[Verdict],
    places: Places = None,
) -> GeneratedPackage:
    """The package of layers of one shape: every template with the pattern's facts in it, and the masks. `places`: which
    of the plan's layers each layer of the pattern is, None for those of other shapes; left out, each is its own."""
    name, known = check_name(plan.classes.name), constants(plan, about, promises, kv, places)
    names = {kernel: f"{kernel}_{name}" for template in templates().values() for kernel in template.kernels}
    sources = dict(companions())
    for file, template in templates().items():
        values = {constant: known[constant] for constant in template.values if constant in known}
        text_of_map = index_map_of(file, plan) if template.index_map else None
        text = specialise(template.text, values, index_map=text_of_map, names=names)
        if file == "package.py":
            file, text = "__init__.py", set_docstring(text, docstring(plan, about, places))
        sources[file] = text.encode()
    sources |= {mask_file(n): mask.bits for n, mask in enumerate(masks(plan))}
    return GeneratedPackage(name, source, {"form": plan.form}, sources)


def index_map_of(file: str, plan: Plan) -> str:
    """The text of a template's index map."""
    if file not in INDEX_MAPS:
        raise TemplateError(f"{file} has an index map that nobody writes")
    return INDEX_MAPS[file](plan)
