"""The constants that a plan puts into the templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

from patterncc.analysis.verdict import Verdict
from patterncc.ir.closed import ClosedForm
from patterncc.ir.layout import Layout, Mask
from patterncc.ir.plan import Plan

WITNESS = ("row", "column", "query_token", "key_token")
Places = Sequence[int | None] | None  # which of the plan's layers each layer of the pattern is


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


def text_of(layout: Layout) -> str:
    """The layout's text, of a mask only its size."""
    text = str(replace(layout, mask=None))
    mask = layout.mask and f"mask {layout.mask.rows}x{layout.mask.columns}"
    return text if mask is None else mask if text == "nothing" else f"{text} | {mask}"


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
