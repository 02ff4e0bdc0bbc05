"""What pictures of both suites are drawn with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Rows = Sequence[Row]


def lines(rows: Rows, name: Callable[[Row], str]) -> dict[str, list[Row]]:
    """Rows of one name, by length."""
    lines: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (name(row), row["tokens"])):
        lines.setdefault(name(row), []).append(row)
    return lines


def curve(
    axis: Any, line: Rows, field: str, *, label: str | None = None, style: str = "o-", color: str | None = None
) -> None:
    """A field against length."""
    axis.plot(
        [row["tokens"] for row in line], [row[field] for row in line], style, label=label, markersize=4, color=color
    )


def by_length(axis: Any, rows: Rows) -> None:
    """A logarithmic axis that names the lengths."""
    axis.set(xscale="log", xlabel="tokens")
    axis.set_xticks(sorted({row["tokens"] for row in rows}))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x / 1024:g}k" if x < 1 << 20 else f"{x / (1 << 20):g}M")
    axis.tick_params(axis="x", labelsize=8, rotation=45)
    axis.minorticks_off()
