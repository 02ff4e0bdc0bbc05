"""How lowering grows with the number of tokens: power laws through what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.lowering import SHAPES, WAYS


def growth(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The law of each way at 32 heads and block 64: time, peak memory and size of the result as powers of the number of
    tokens, fitted by least squares to the logarithms of all lengths."""
    found = []
    for way in WAYS:
        own = [row for row in rows if row["what"] == way and (row["heads"], row["block"]) == SHAPES[1]]
        for quantity in ("seconds", "peak_bytes", "bytes"):
            points = {row["tokens"]: row[quantity] for row in own if row.get(quantity)}
            if len(points) >= 3:
                law = {"tokens": [min(points), max(points)], "points": len(points), **power_law(points)}
                found.append({"what": way, "quantity": quantity, **law})
    return found


def power_law(points: Mapping[float, float]) -> dict[str, float | None]:
    """`factor · x ** exponent`; the share of the variance that it explains (R²; None where nothing varies), and how
    many times too high or too low it is at most. `at_the_end` is the exponent between the two largest x.

    >>> power_law({1: 3.0, 2: 12.0, 4: 48.0})
    {'exponent': 2.0, 'factor': 3.0, 'r2': 1.0, 'off_by_at_most': 1.0, 'at_the_end': 2.0}
    """
    x, y = ([math.log(value) for value in values] for values in (points.keys(), points.values()))
    exponent, offset = statistics.linear_regression(x, y)
    residuals = [b - offset - exponent * a for a, b in zip(x, y, strict=True)]
    before, last = sorted(zip(x, y, strict=True))[-2:]
    varies = sum((b - statistics.fmean(y)) ** 2 for b in y)
    return {
        "exponent": round(exponent, 2) + 0.0,
        "factor": float(f"{math.exp(offset):.4g}"),
        "r2": round(1 - sum(r * r for r in residuals) / varies, 4) if varies > 0.01 else None,
        "off_by_at_most": round(math.exp(max(map(abs, residuals))), 2),
        "at_the_end": round((last[1] - before[1]) / (last[0] - before[0]), 2) + 0.0,
    }
