"""From a plan to the files of a package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any

from patterncc.analysis.verdict import Verdict
from patterncc.codegen.docstring import Places, docstring, set_docstring, text_of
from patterncc.codegen.index_map import index_map
from patterncc.codegen.package import GeneratedPackage, check_name
from patterncc.codegen.row_map import row_map
from patterncc.codegen.specialise import specialise
from patterncc.codegen.template import TemplateError, companions, templates
from patterncc.ir.closed import ClosedForm
from patterncc.ir.layout import Layout, Mask
from patterncc.ir.plan import Plan

INDEX_MAPS = {"kernels/index_map.py": index_map, "kernels/row_map.py": row_map}
WITNESS = ("row", "column", "query_token", "key_token")


def specialise_package(
    plan: Plan, about: str, promises: Mapping[str, Any] | None, source: str, kv: Iterable[Verdict]
) -> GeneratedPackage:
    """The package of a plan; where layers differ in their shapes, one package above those of each shape.

    `source` is the YAML text, which only the manifest holds; `kv` are the verdicts that `prove_for_caches` gives.
    """
    if plan.classes.shapes:
        from patterncc.codegen.by_layer import specialise_by_layer

        return specialise_by_layer(plan, about, promises, source, tuple(kv))
    return specialise_shape(plan, about, promises, source, kv)


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


def constants(
    plan: Plan, about: str, promises: Mapping[str, Any] | None, kv: Iterable[Verdict], places: Places = None
) -> dict[str, object]:
    """Every constant of every template, by name."""
    classes, known = plan.classes, masks(plan)
    places = range(classes.layers) if places is None else places
    return {
        "NAME": classes.name,
        "BLOCK": classes.block,
        "HEAD_DIM": classes.head_dim,
        "V_HEAD_DIM": classes.v_head_dim,
        "HEADS": classes.heads,
        "KV_HEADS": classes.kv_heads,
        "LAYERS": len(places),
        "CAUSAL": classes.causal,
        "IS_CAUSAL": classes.causal,
        "FORM": plan.form,
        "IS_TABLE": plan.form == "table",
        "ROWS_PER_TILE_FREE": plan.free_tiles,
        "SOFTCAP": classes.softcap,
        "HAS_SOFTCAP": classes.softcap > 0,
        "SCALE": classes.scale,
        "NEEDS_SINKS": classes.sinks,
        "CLASSES": tuple(_rules(known, *pair) for pair in zip(classes.layouts, plan.closed, strict=True)),
        "CLASS_OF": tuple(() if place is None else classes.of[place] for place in places),
        "MASKS": tuple((mask_file(n), mask.rows, mask.columns) for n, mask in enumerate(known)),
        "FACTS": {
            "name": classes.name,
            "about": about,
            "heads": classes.heads,
            "kv_heads": classes.kv_heads,
            "head_dim": classes.head_dim,
            "v_head_dim": classes.v_head_dim,
            "layers": len(places),
            "block": classes.block,
            "causal": classes.causal,
            "softcap": classes.softcap or None,
            "scale": classes.scale or None,
            "sinks": "learned" if classes.sinks else None,
            "promises": None if promises is None else {key: _plain(value) for key, value in promises.items()},
            "classes": [text_of(layout) for layout in classes.layouts],
            "kv": taken_up_again(len(places), kv),
        },
    }


def taken_up_again(layers: int, kv: Iterable[Verdict]) -> list[dict[str, Any] | None]:
    """For each layer None where it is proved that no head takes up a column it has dropped, else why not: a compact
    cache keeps only what is still to be read, and refuses such a layer."""
    found: list[dict[str, Any] | None] = [None] * layers
    for verdict in kv:
        if verdict.holds is not True:
            witness: dict[str, Any] = verdict.witness.to_json() if verdict.witness else dict.fromkeys(WITNESS)
            note = verdict.note or verdict.proof
            entry = {"head": verdict.heads[0] if verdict.heads else None, **witness, "note": note}
            for layer in verdict.layers:
                found[layer] = entry
    return found


def masks(plan: Plan) -> list[Mask]:
    """The distinct masks, in the order of their first class."""
    return list(dict.fromkeys(layout.mask for layout in plan.classes.layouts if layout.mask))


def mask_file(number: int) -> str:
    return f"mask_{number}.bin"


def _rules(known: list[Mask], layout: Layout, form: ClosedForm | None) -> dict[str, object]:
    """A class as plain data: its text, and every field of its layout and closed form."""
    mask = known.index(layout.mask) if layout.mask else None
    bands = form and tuple((b.d_from, b.d_to, b.every, b.residues, b.anchor) for b in form.bands)
    return {
        "text": text_of(layout),
        "terms": tuple(map(astuple, layout.terms)),
        "window": layout.window,
        "sink": layout.sink,
        "random": layout.random and astuple(layout.random),
        "mask": mask,
        "chunk": layout.chunk,
        "bands": layout.bands,
        "closed": form and (form.sink, bands),
    }


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
