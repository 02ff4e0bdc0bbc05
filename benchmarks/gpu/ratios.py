"""How many times as fast one way is as another, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CLEAR = 1.02  # how much faster, by the geometric mean: less is noise


@dataclass(frozen=True)
class Ratio:
    """One cell's: times as fast, and by how much two runs of it differ."""

    cell: str
    value: float
    doubt: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.doubt:.3f}  {self.cell}"


@dataclass(frozen=True)
class Judged:
    """What some cells say together: 1 faster, -1 slower, 0 neither; sure where no cell's doubt reaches 1, likely where
    one does or says the contrary, open where they say nothing."""

    sign: int
    sure: str
    mean: float


def ratio(row: Mapping[str, Any], slow: str, fast: str, ms: str = "ms", spread: str = "spread") -> Ratio:
    """How many times as fast `fast` is as `slow`, of a row that has both. What was measured without a spread has the
    distance between its median and its least.

    >>> row = {"cell": "x", "a_ms": 3.0, "b_ms": 2.0, "a_spread": 0.01, "b_ms_min": 1.9}
    >>> print(ratio(row, "a", "b"))
    1.500 ± 0.090  x
    """

    def part(name: str) -> float:
        median = row[f"{name}_{ms}"]
        known = row.get(f"{name}_{spread}")
        return known if known is not None else (median - row.get(f"{name}_{ms}_min", median)) / median

    value = row[f"{slow}_{ms}"] / row[f"{fast}_{ms}"]
    return Ratio(row.get("cell", ""), value, value * (part(slow) + part(fast)))


def judged(ratios: Sequence[Ratio]) -> Judged:
    """What they say together.

    >>> print(judged([Ratio("x", 1.2, 0.01), Ratio("y", 1.1, 0.02)]))
    Judged(sign=1, sure='sure', mean=1.1489125293076057)
    >>> [judged([Ratio("x", *each)]).sure for each in ((0.9, 0.2), (1.01, 0.0))]
    ['likely', 'open']
    """
    mean = math.exp(sum(math.log(each.value) for each in ratios) / len(ratios))
    sign = 1 if mean > CLEAR else -1 if mean < 1 / CLEAR else 0
    if not sign:
        return Judged(0, "open", mean)
    is_sure = all(sign * (each.value - 1) > each.doubt for each in ratios)
    return Judged(sign, "sure" if is_sure else "likely", mean)
