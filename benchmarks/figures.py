"""Pictures of what was measured, for those who have matplotlib."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures_cpu import cpu
from benchmarks.gpu.cells import USUAL
from benchmarks.gpu.shares import dense
from benchmarks.plots import Rows, by_length, curve, lines


def draw(suite: str, document: Mapping[str, Any], path: Path) -> Path | None:
    """The picture of a suite; None without matplotlib, or when the suite has nothing to draw."""
    try:
        importlib.import_module("matplotlib").use("Agg")
    except ImportError:
        return None
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure = cpu(pyplot, document) if suite == "cpu" else _gpu(pyplot, document)
    if figure is None:
        return None
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return path


def _gpu(pyplot: Any, document: Mapping[str, Any]) -> Any:
    """Four panels: rate against length, share of the ceiling against block, decoding, and first calls."""
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7.6))
    panels: tuple[Callable[[Any, Mapping[str, Any]], bool], ...] = (_rates, _blocks, _decoding, _first_calls)
    for axis, panel in zip(axes.flat, panels, strict=True):
        if not panel(axis, document):
            axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes, color="0.5")
            axis.set(xticks=[], yticks=[])
    return figure


def _rates(axis: Any, document: Mapping[str, Any]) -> bool:
    """TFLOP/s over kept pairs against length, and dense attention's ceiling."""
    axis.set(title="TFLOP/s over kept pairs, by length", ylabel="TFLOP/s")
    rows = [row for row in document.get("attention", ()) if row.get("tflops")]
    for name, line in lines(rows, lambda row: f"{row['case']}, batch {row['batch']}, {row['direction']}").items():
        if len(line) > 1 or len(rows) <= 4:
            curve(axis, line, "tflops", label=name, style="o-" if "forward" in name else "s--")
    dims = {row["head_dim"] for row in rows}
    for direction, style in (("forward", "-"), ("backward", "--")):
        best = [dense(document.get("ceilings", ()), direction, dim) for dim in dims & {128}]
        if best and best[0]:
            axis.axhline(best[0], color="0.5", linestyle=style, linewidth=1, label=f"best dense, {direction}")
    if rows:
        by_length(axis, rows)
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False, fontsize=7)
    return bool(rows)


def _blocks(axis: Any, document: Mapping[str, Any]) -> bool:
    """Share of the best dense kernel's rate, for blocks at equal density."""
    axis.set(title="share of the best dense kernel, by block", xlabel=f"block, at {USUAL:,} tokens")
    rows = [row for row in by_block(document.get("attention", ())) if row.get("share_of_dense")]
    blocks = sorted({row["block"] for row in rows})
    for n, direction in enumerate(("forward", "backward")):
        shares = {row["block"]: row["share_of_dense"] for row in rows if row["direction"] == direction}
        places = [blocks.index(block) + 0.4 * n for block in shares]
        axis.bar(places, shares.values(), width=0.38, label=direction)
    if rows:
        axis.set_xticks([n + 0.2 for n in range(len(blocks))], [str(block) for block in blocks])
        axis.axhline(0.9, color="0.5", linestyle=":", label="target")
        axis.set_ylim(top=1.2 * max(1.0, *(row["share_of_dense"] for row in rows)))
        axis.legend(frameon=False, fontsize=8, ncols=3, loc="upper center")
    return bool(rows)


def by_block(rows: Rows) -> Rows:
    """Those that differ in nothing but the block."""
    names = ("ancestor", "block16", "block32", "block128")
    return [row for row in rows if (row.get("batch"), row.get("tokens")) == (1, USUAL) and row.get("case") in names]


def _decoding(axis: Any, document: Mapping[str, Any]) -> bool:
    """Bytes of kept keys and values a second, and the copy's."""
    axis.set(title="decoding: kept bytes a second", xlabel="TB/s")
    rows = [row for row in document.get("serving", ()) if row.get("tb_per_s")]
    axis.barh([f"{row['case']}, {row['requests']} x {row['tokens']:,}" for row in rows], [r["tb_per_s"] for r in rows])
    for row in document.get("ceilings", ()):
        if row.get("tb_per_s") and rows:
            axis.axvline(row["tb_per_s"], color="0.5", linestyle=":", label="copy")
            axis.legend(frameon=False, fontsize=8)
    axis.invert_yaxis()
    return bool(rows)


def _first_calls(axis: Any, document: Mapping[str, Any]) -> bool:
    """Seconds of a new process, stacked in the order in which they pass."""
    axis.set(title="a new process: seconds to its first results", xlabel="seconds")
    rows = [row for row in document.get("first_call", ()) if row.get("forward_s") is not None]
    names = [f"{row['what']}\ncaches {row['caches']}" for row in rows]
    done = [0.0] * len(rows)
    for step in ("import", "forward", "backward", "decode"):
        took = [row.get(f"{step}_s") or 0.0 for row in rows]
        axis.barh(names, took, left=done, label=step)
        done = [a + b for a, b in zip(done, took, strict=True)]
    if rows:
        axis.invert_yaxis()
        axis.tick_params(axis="y", labelsize=7)
        axis.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return bool(rows)
