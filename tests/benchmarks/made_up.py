"""Made-up results of the GPU suite, for what `python -m benchmarks decide` reads from them."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.cells import cells
from benchmarks.gpu.changes import VARIANTS
from benchmarks.gpu.choices import decisions
from benchmarks.gpu.decision import Decision, changes
from benchmarks.gpu.selections import DECIDING

NOW = {"IS_FASTER": "HEAD_DIM == 128", "MOST_MERGED": "1 << 16", "LEAST_SAVED": "1 / 8", "LEAST_TILES": "8"}
SMALL = "families: ancestor, 1 x 2048"


def present(constant: str, file: str) -> str:
    return NOW.get(constant, "False")


def family(cell: str, direction: str, ratio: float, spread: float = 0.001, **more: Any) -> dict[str, Any]:
    """A row of `families`, in which the one in Gluon is so many times as fast."""
    times = {"triton_ms": ratio, "gluon_ms": 1.0, "triton_spread": spread, "gluon_spread": spread}
    [given] = [known.given for known in cells("families") if known.name == cell]
    what = {"cell": cell, **given, "direction": direction, "is_hopper": True, "is_large": cell != SMALL}
    return {**what, "unasked": direction == "forward", **times, **more}


def families(forward: float, backward: float, **other: float) -> list[dict[str, Any]]:
    """All rows that constants wait for; of some cases another ratio, of both directions."""
    found: list[dict[str, Any]] = []
    for cell in DECIDING["families"]:
        ratios = {"forward": forward, "backward": backward}
        case = next(known.given["case"] for known in cells("families") if known.name == cell)
        found += (family(cell, way, other.get(case, ratio)) for way, ratio in ratios.items())
    return [row for row in found if (row["case"], row["direction"]) != ("dim256", "backward")]


def fused(ratio: float, *left: str) -> list[dict[str, Any]]:
    """Rows of the fused backward, so many times as fast as Gluon's; without some cases."""
    times = {"now_ms": ratio, "changed_ms": 1.0, "now_spread": 0.001, "changed_spread": 0.001}
    return [
        {"cell": f"variants: {name}", "case": each.case, "batch": each.batch, "tokens": each.tokens}
        | {"family": "fused", "constant": each.constant, "direction": "backward", "is_hopper": True, **times}
        for name, each in VARIANTS.items()
        if each.family == "fused" and each.base not in left
    ]


def of(results: dict[str, Any], about: str) -> Decision:
    [found] = [each for each in decisions(results, present) if each.about.startswith(about)]
    return found


def lines(results: dict[str, Any]) -> list[str]:
    return [line.strip() for line in changes(decisions(results, present))]


def steps(what: str, cell: str, slow: float, **more: Any) -> dict[str, Any]:
    names = ("two", "one") if what == "launches" else ("apart", "shared")
    row = {f"{names[0]}_graph_ms": slow, f"{names[1]}_graph_ms": 1.0, f"{names[0]}_over_{names[1]}": slow}
    return {"cell": cell, "what": what, **row, **more, **{f"{name}_graph_spread": 0.001 for name in names}}
