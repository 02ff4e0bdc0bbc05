"""The picture of the CPU suite: shares of the ideal, flex_attention, decoding, and how lowering grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.plots import Row, Rows, by_length, curve, lines
from benchmarks.targets import SHARES

DTYPES = {"fp32": "o-", "bf16": "s--"}


def cpu(pyplot: Any, document: Mapping[str, Any]) -> Any:
    """Six panels; None where nothing that they show was measured."""
    if not any(document.get(part) for part in ("attention", "decoding", "lowering")):
        return None
    figure, axes = pyplot.subplots(2, 3, figsize=(14, 8))
    panels: tuple[Callable[[Any, Mapping[str, Any]], bool], ...]
    panels = (_forward, _backward, _over_flex, _time, _peak, _decoding)
    for axis, panel in zip(axes.flat, panels, strict=True):
        if not panel(axis, document):
            axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes, color="0.5")
            axis.set(xticks=[], yticks=[])
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _forward(axis: Any, document: Mapping[str, Any]) -> bool:
    """Shares of the ideal against length, and their targets."""
    shown = _attention(axis, document, "forward", "share_of_ideal", "share of ideal (dense time x density)")
    for dtype, goal in SHARES.items() if shown else ():
        style = "--" if dtype == "bf16" else ":"
        axis.axhline(goal, color="0.5", linewidth=1, linestyle=style)
        place = axis.get_yaxis_transform()
        axis.text(1, goal, f"target {dtype}", transform=place, fontsize=7, color="0.4", ha="right", va="bottom")
    return shown


def _backward(axis: Any, document: Mapping[str, Any]) -> bool:
    return _attention(axis, document, "backward", "share_of_ideal", "forward + backward: share of ideal")


def _over_flex(axis: Any, document: Mapping[str, Any]) -> bool:
    """Times as fast as compiled flex_attention."""
    return _attention(axis, document, "forward", "over_flex", "speedup over compiled flex_attention")


def _attention(axis: Any, document: Mapping[str, Any], direction: str, field: str, title: str) -> bool:
    """A field of attention against length: a colour for each pattern, a line style for each dtype."""
    axis.set(title=title if direction in title else f"{direction}: {title}")
    rows = [row for row in document.get("attention", ()) if row["direction"] == direction and row.get(field)]
    patterns = sorted({(row["local"], row["stride"]) for row in document.get("attention", ())}, reverse=True)
    for number, (local, stride) in enumerate(patterns):
        for dtype, style in DTYPES.items():
            line = [row for row in rows if (row["local"], row["stride"], row["dtype"]) == (local, stride, dtype)]
            if line:
                name = f"local {local}, stride {stride}, {dtype}"
                curve(axis, line, field, label=name, style=style, color=f"C{number}")
    if rows:
        by_length(axis, rows)
        axis.axhline(1, color="0.75", linewidth=0.8)
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False, fontsize=7, ncols=2)
    return bool(rows)


def _time(axis: Any, document: Mapping[str, Any]) -> bool:
    return _growth(axis, document, "seconds", 1, "lowering, 32 heads, block 64: seconds")


def _peak(axis: Any, document: Mapping[str, Any]) -> bool:
    return _growth(axis, document, "bytes", 1 << 20, "lowering, 32 heads, block 64: MiB of the result")


def _growth(axis: Any, document: Mapping[str, Any], quantity: str, unit: int, title: str) -> bool:
    """Each way's measurements, and the law that was fitted to them."""
    axis.set(title=title)
    laws = {row["what"]: row for row in document.get("growth", ()) if row["quantity"] == quantity}
    rows = [
        row for row in document.get("lowering", ()) if (row["heads"], row["block"]) == (32, 64) and row.get(quantity)
    ]
    for number, (way, line) in enumerate(lines(rows, lambda row: row["what"]).items()):
        law = laws.get(way)
        label = f"{way}: n^{law['exponent']:g}" if law else way
        scaled: Rows = [{**row, quantity: row[quantity] / unit} for row in line]
        curve(axis, scaled, quantity, label=label, style="o", color=f"C{number}")
        if law:
            fitted: list[Row] = [
                {"tokens": n, quantity: law["factor"] * n ** law["exponent"] / unit} for n in law["tokens"]
            ]
            curve(axis, fitted, quantity, style="-", color=f"C{number}")
    if rows:
        by_length(axis, [{"tokens": 1 << n} for n in range(11, 25, 3)])
        axis.set(yscale="log")
        axis.legend(frameon=False, fontsize=7)
    return bool(rows)


def _decoding(axis: Any, document: Mapping[str, Any]) -> bool:
    """Milliseconds a step, with their spread."""
    axis.set(title="decoding: ms per token", yscale="log")
    rows = document.get("decoding", ())
    for number, (who, name) in enumerate((("full", "SDPA, full cache"), ("compact", "compact cache"))):
        heights = [1e3 * row[f"{who}_s_per_step"] for row in rows]
        spread = [
            [abs(1e3 * row.get(f"{who}_s_per_step_{end}", row[f"{who}_s_per_step"]) - height)
             for row, height in zip(rows, heights, strict=True)]
            for end in ("min", "max")
        ]  # fmt: skip
        bars = axis.bar([n + 0.4 * number for n in range(len(rows))], heights, width=0.38, yerr=spread, label=name)
        axis.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
    if rows:
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_xticks([n + 0.2 for n in range(len(rows))], [f"{row['tokens'] // 1024}k tokens" for row in rows])
        axis.legend(frameon=False, fontsize=8)
    return bool(rows)
