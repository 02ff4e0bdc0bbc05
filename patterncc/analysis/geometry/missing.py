"""Which old blocks no head keeps, in words: residues, distances, and their share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from patterncc.analysis.geometry.box import Box
from patterncc.analysis.geometry.budget import DEFAULT, Budget, Undecided
from patterncc.analysis.geometry.covering import uncovered
from patterncc.analysis.geometry.extent import column_extent
from patterncc.analysis.geometry.gaps import Gap, Gaps
from patterncc.analysis.geometry.residues import INFINITY, merge
from patterncc.analysis.geometry.union import Union, union
from patterncc.ir.layout import Layout
from patterncc.ir.tokens import touched
from patterncc.language.ranges import spans

LISTED = 4096  # the largest period whose residues are listed


@dataclass(frozen=True)
class Missing:
    """Block pairs that no head keeps, at distances d_from <= d < d_to (None: without end).

    counted: "j" or "i-j"; every, residues: those x of 0 .. every-1 that are missing, of every block far from the start
    share: of the block pairs at these distances
    """

    d_from: int
    d_to: int | None
    counted: str
    every: int
    residues: tuple[int, ...]
    share: float

    def __str__(self) -> str:
        if self.d_to is None:
            where = f"from distance {self.d_from} on"
        elif self.d_to == self.d_from + 1:
            where = f"at distance {self.d_from}"
        else:
            where = f"at distances {self.d_from} to {self.d_to - 1}"
        if self.every == 1:
            return f"no block is kept {where}"
        residues, are = ("residues", "are") if len(self.residues) > 1 else ("residue", "is")
        of = "" if self.counted == "j" else " of the distance"
        return f"{residues} {runs(self.residues)} of {self.every}{of} {are} kept by no head {where}"


def missing(kept: Iterable[Layout], causal: bool, block: int, budget: Budget = DEFAULT) -> tuple[Missing, ...]:
    """The block pairs far from the start that the layouts together never keep, nearest distances first.

    Blocks of which a window keeps any token count as kept; random and mask parts do not.

    >>> heads = [Layout.parse(f"d<16 | j%16=={g}") for g in range(8)]
    >>> [str(m) for m in missing(heads, True, 64)]
    ['residues 8-15 of 16 are kept by no head from distance 16 on']
    """
    whole = union(replace(touched(x, causal=causal, block=block), random=None, mask=None) for x in kept)
    start = column_extent(whole)[0]
    region = Box(d0=0, j0=start, i0=start).tight()
    found: list[Missing] = []
    try:
        gaps = sorted(Gaps(region, whole.terms, budget), key=lambda gap: gap.box.d0)
    except Undecided:
        return ()
    for gap in gaps:
        entry = _missing(gap, budget)
        if entry is None:
            continue
        last = found[-1] if found else None
        if last and last.d_to == entry.d_from and _same(last, entry):
            found[-1] = Missing(last.d_from, entry.d_to, last.counted, last.every, last.residues, last.share)
        else:
            found.append(entry)
    return tuple(found)


def strides_of(kept: Union | Iterable[Layout]) -> tuple[int, ...]:
    """The strides of the parts that reach without end."""
    whole = kept if isinstance(kept, Union) else union(kept)
    far = (t for t in whole.terms if t.d_to is None and t.j_to is None and t.i_to is None and t.width < t.every)
    return tuple(sorted({t.every for t in far}))


def runs(numbers: Iterable[int]) -> str:
    """Numbers as ranges.

    >>> runs([0, 8, 9, 10, 15]), runs(range(1, 32, 2))
    ('0, 8-10, 15', '1-31 in steps of 2')
    """
    numbers = sorted(numbers)
    steps = {b - a for a, b in pairwise(numbers)}
    if len(numbers) > 3 and len(steps) == 1 and steps != {1}:
        return f"{numbers[0]}-{numbers[-1]} in steps of {steps.pop()}"
    shown = spans(numbers)
    return ", ".join([*shown[:8], "..."] if len(shown) > 8 else shown)


def _same(a: Missing, b: Missing) -> bool:
    return (a.counted, a.every, a.residues) == (b.counted, b.every, b.residues)


def _missing(gap: Gap, budget: Budget) -> Missing | None:
    d_from, d_to = int(max(gap.box.d0, 0)), None if gap.box.d1 == INFINITY else int(gap.box.d1)
    share, every, residues, counted = 1.0, 1, (0,), "j"
    for arcs, name in ((gap.key, "j"), (gap.query, "i-j")):
        if not arcs:
            continue
        held = merge(arcs)
        if held is None:
            return None
        try:
            left = uncovered(held, budget)
        except Undecided:
            return None
        if not left.classes:
            return None
        share *= sum(1 / period for _, period in left.classes)
        period = left.classes[0][1]
        if every == 1 and period <= LISTED and left.complete:
            every, counted = period, name
            residues = tuple(sorted(x for x, _ in left.classes))
    return Missing(d_from, d_to, counted, every, residues, share)
