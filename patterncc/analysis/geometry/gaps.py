"""The boxes of the plane that terms leave: no bound of a term cuts such a box, and no term keeps all of it.

The search splits boxes at the terms' bounds and always continues with the box of the smallest first row. So a caller
who has found a witness in some row stops before any box that starts after that row is split.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from patterncc.analysis.geometry.box import INFINITY, Box, box_of
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.residues import Arc, arcs_of, fill
from patterncc.ir.layout import KEY, QUERY, Term

Candidates = tuple[tuple[Box, Term], ...]
FEW = 2  # bounds: both of a window


@dataclass(frozen=True)
class Gap:
    """A box that no bound cuts and no term keeps whole. The pairs that are left in it have a column outside the key
    arcs and a distance outside the query arcs. `later`: the terms that may keep one of its columns in a later row
    (filled only when `Gaps` was asked for them)."""

    box: Box
    key: frozenset[Arc]
    query: frozenset[Arc]
    later: Candidates


class Gaps:
    """The gaps that terms leave in a region, in order of their first rows, found one at a time on demand."""

    def __init__(self, region: Box, terms: Iterable[Term], budget: Budget, *, later: bool = False) -> None:
        bounds = tuple((box_of(t), t) for t in set(terms) if t.width > 0)
        self._budget = budget
        self._number = count()  # a heap compares ties by the next entry: boxes have no order
        self._heap: list[tuple[float, int, Box, Candidates, Candidates]] = []
        self._work = 0
        self._add(region.tight(), bounds, bounds if later else ())

    def next(self, last: float = INFINITY) -> Gap | None:
        """The next gap that starts in a row <= `last`, cut off after that row; None: there is none.

        `last` may only fall from call to call. Raises Undecided(row) when the budget ends: every gap that starts
        before `row` has been seen.

        >>> found = Gaps(Box(d0=0), [Term(d_to=16), Term(every=16, width=8)], Budget())
        >>> found.next().box, found.next()
        (Box(d0=16, d1=inf, j0=0, j1=inf, i0=16, i1=inf), None)
        """
        while self._heap and self._heap[0][0] <= last:
            row, _, box, candidates, later = heapq.heappop(self._heap)
            self._work += 1 + len(candidates) + len(later)
            if self._work > self._budget.meetings:
                raise Undecided(int(row))
            if box.i1 > last + 1:
                box = box.meet(Box(i1=last + 1))
            active = meeting(box, candidates, self._budget)
            if active is None:
                continue
            if later:
                later = tuple(entry for entry in later if entry[0].i0 <= last and box.before(entry[0]))
            parts = cut(box, active)
            if parts is None:
                return Gap(box, _arcs(active, KEY), _arcs(active, QUERY), later)
            for part in parts:
                self._add(part.tight(), active, later)
        return None

    def __iter__(self) -> Iterator[Gap]:
        """All gaps."""
        while (gap := self.next()) is not None:
            yield gap

    def _add(self, box: Box, candidates: Candidates, later: Candidates) -> None:
        if not box.empty:
            heapq.heappush(self._heap, (box.i0, next(self._number), box, candidates, later))


def _arcs(active: Candidates, anchor: str) -> frozenset[Arc]:
    return arcs_of((t.every, t.offset, t.width) for _, t in active if t.anchor == anchor)


def meeting(box: Box, candidates: Candidates, budget: Budget) -> Candidates | None:
    """The terms that may keep pairs of the box; None when they are proved to keep every pair of it.

    In a box that no bound cuts, ranges that overlap contain the box's: then every term returned is active throughout.
    """
    active = []
    arcs: dict[str, list[Arc]] = {KEY: [], QUERY: []}
    for bounds, term in candidates:
        if box.overlaps(bounds):
            if box.within(bounds):
                if term.width >= term.every:
                    return None
                arcs[term.anchor].append((term.every, term.offset, term.width))
            active.append((bounds, term))
    for some in arcs.values():
        if len(some) > 1 and fill(arcs_of(some), budget):
            return None
    return tuple(active)


def cut(box: Box, active: Candidates) -> tuple[Box, Box] | None:
    """The box split in two at the middle one of the bounds that cut it; None when no bound does.

    Bounds on the distance are tried first: one such cut often removes everything that a window keeps.
    """
    d, j, i = set(), set(), set()
    for bounds, _ in active:
        d.update(x for x in (bounds.d0, bounds.d1) if box.d0 < x < box.d1)
        j.update(x for x in (bounds.j0, bounds.j1) if box.j0 < x < box.j1)
        i.update(x for x in (bounds.i0, bounds.i1) if box.i0 < x < box.i1)
    most = d if 0 < len(d) <= FEW else max(d, j, i, key=len)
    if not most:
        return None
    x = sorted(most)[len(most) // 2]
    b = box
    if most is d:
        return Box(b.d0, x, b.j0, b.j1, b.i0, b.i1), Box(x, b.d1, b.j0, b.j1, b.i0, b.i1)
    if most is j:
        return Box(b.d0, b.d1, b.j0, x, b.i0, b.i1), Box(b.d0, b.d1, x, b.j1, b.i0, b.i1)
    return Box(b.d0, b.d1, b.j0, b.j1, b.i0, x), Box(b.d0, b.d1, b.j0, b.j1, x, b.i1)
