"""What share of the ceilings each figure reaches: computed from the rows, measuring nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def with_shares(results: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The same rows; those with TFLOP/s also say their share of the best dense kernel's, of that direction and head
    dim, and those with bytes a second their share of the copy's, and how many microseconds longer they take than it
    would. Where no ceiling was measured there is no share.

    >>> ceilings = [{"what": "copy", "tb_per_s": 4.0}]
    >>> ceilings += [{"what": "dense", "direction": "forward", "head_dim": 64, "tflops": rate} for rate in (200, 150)]
    >>> rows = [{"direction": "forward", "head_dim": 64, "tflops": 150}, {"tb_per_s": 3.0}, {"note": "no memory"}]
    >>> for row in with_shares({"ceilings": ceilings, "attention": rows})["attention"]:
    ...     print(row)
    {'direction': 'forward', 'head_dim': 64, 'tflops': 150, 'share_of_dense': 0.75}
    {'tb_per_s': 3.0, 'share_of_copy': 0.75}
    {'note': 'no memory'}
    """
    ceilings = results.get("ceilings", ())
    copy = max((row["tb_per_s"] for row in ceilings if row.get("tb_per_s")), default=None)

    def shared(row: Row) -> Row:
        if row.get("tflops") and (best := dense(ceilings, row.get("direction"), row.get("head_dim"))):
            return {**row, "share_of_dense": round(row["tflops"] / best, 4)}
        if row.get("tb_per_s") and copy:
            shared = {"share_of_copy": round(row["tb_per_s"] / copy, 4)}
            if size := row.get("kept_bytes"):
                shared["over_floor_us"] = round(size * (1 / row["tb_per_s"] - 1 / copy) / 1e6, 3)
            return {**row, **shared}
        return row

    return {part: [row if part == "ceilings" else shared(row) for row in rows] for part, rows in results.items()}


def dense(ceilings: Sequence[Row], direction: str | None, head_dim: int | None) -> float | None:
    """TFLOP/s of the fastest of SDPA's backends."""
    rates = [
        row["tflops"]
        for row in ceilings
        if row["what"] == "dense"
        and (row.get("direction"), row.get("head_dim")) == (direction, head_dim)
        and row.get("tflops")
    ]
    return max(rates, default=None)
