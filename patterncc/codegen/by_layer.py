"""A pattern whose layers differ in heads or widths: a package for each shape, and one above them that sends each call
to the package of its layer. The kernels of a shape know nothing of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from patterncc.analysis.verdict import Verdict
from patterncc.codegen.constants import constants
from patterncc.codegen.docstring import docstring, set_docstring
from patterncc.codegen.one_shape import specialise_shape
from patterncc.codegen.package import GeneratedPackage, check_name
from patterncc.codegen.shapes import folder_of, layers_of, shapes_of
from patterncc.codegen.specialise import specialise
from patterncc.codegen.template import templates_by_layer
from patterncc.ir.plan import Plan
from patterncc.language.ranges import ranges
from patterncc.language.shape import SIZES, Shape
from patterncc.passes.of_shape import of_shape


def specialise_by_layer(
    plan: Plan, about: str, promises: Mapping[str, Any] | None, source: str, kv: Sequence[Verdict]
) -> GeneratedPackage:
    """The package above those of all shapes, with these in it."""
    name, known = check_name(plan.classes.name), constants_by_layer(plan, about, promises, kv)
    own: dict[str, bytes] = {}
    for file, template in templates_by_layer().items():
        text = specialise(template.text, {constant: known[constant] for constant in template.values})
        if file == "package.py":
            file, text = "__init__.py", set_docstring(text, docstring(plan, about))
        own[file] = text.encode()
    parts = {folder: _part(plan, shape, about, promises, source, kv) for shape, folder in shapes_of(plan).items()}
    options = {"form": plan.form, "parts": {folder: list(layers_of(plan, s)) for s, folder in shapes_of(plan).items()}}
    return GeneratedPackage(name, source, options, own, parts)


def constants_by_layer(
    plan: Plan, about: str, promises: Mapping[str, Any] | None, kv: Sequence[Verdict]
) -> dict[str, object]:
    """The constants of the templates above several shapes. Of a size that differs by layer the facts say None, and all
    in `shapes`."""
    classes, shapes = plan.classes, shapes_of(plan)
    facts: Any = constants(plan, about, promises, kv)["FACTS"]
    sizes = {key: {getattr(shape, key) for shape in shapes} for key in SIZES}
    facts |= {key: next(iter(known)) if len(known) == 1 else None for key, known in sizes.items()}
    facts["sinks"] = "learned" if all(shape.sinks for shape in shapes) else None
    facts["shapes"] = [
        {key: getattr(shape, key) for key in SIZES} | {"sinks": "learned" if shape.sinks else None}
        for shape in classes.shapes
    ]
    return {
        "NAME": classes.name,
        "PARTS": tuple(f".{folder}" for folder in shapes.values()),
        "PART_OF": tuple(list(shapes).index(shape) for shape in classes.shapes),
        "FACTS": facts,
    }


def _part(
    plan: Plan, shape: Shape, about: str, promises: Mapping[str, Any] | None, source: str, kv: Sequence[Verdict]
) -> GeneratedPackage:
    """The package of one shape. It knows all layers by their numbers in the pattern, and serves its own; kernels,
    operators and messages carry its name."""
    part, layers = of_shape(plan, shape), layers_of(plan, shape)
    part = replace(part, classes=replace(part.classes, name=f"{plan.classes.name}_{folder_of(shape)}"))
    at = {layer: n for n, layer in enumerate(layers)}
    places = [at.get(layer) for layer in range(plan.classes.layers)]
    about = f"Layers {ranges(layers)} of {plan.classes.name}. {about}".rstrip()
    return specialise_shape(part, about, promises, source, kv, places)
