"""The smallest block pair that a region holds and no term keeps.

Theorem (outside). Let each term be bounds on i - j, j, i and at most one residue, of j or of i - j. Split the region at
the terms' bounds. In a box that no bound cuts, the pairs that no term keeps are { (i, j) : j in A, i - j in D }, A
the columns outside every active key arc, D the distances outside every active query arc. They are found exactly, for
every length: there is such a pair iff there is one with i below the bounds' sum plus the arcs' periods.
Proof. In such a box a term's bounds hold everywhere (active) or nowhere (inactive). A pair is kept iff an active
term's residue holds, and each of those speaks of j alone or of i - j alone: not kept is a product. Its smallest pair
is (min A + min D, min A) unless the row's range forbids it; `_smallest` treats that. A and D are periodic
(`residues`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import lcm

from patterncc.analysis.geometry.box import INFINITY, Box, box_of
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.gaps import Gaps
from patterncc.analysis.geometry.residues import Arc, complement, first_free, held, last_free, merge
from patterncc.ir.layout import KEY, Term
from patterncc.lazy import np

Pair = tuple[int, int]  # (row, column)


def first_outside(region: Term, terms: Iterable[Term], budget: Budget) -> Pair | None:
    """The smallest (row, column) that the region keeps and no term does; None: it is proved that there is none.

    Raises Undecided(row, known): no such pair lies in a row before `row`; `known` is one, or None.

    >>> terms = [Term(d_to=16)] + [Term(every=16, offset=g) for g in range(8)]
    >>> first_outside(Term(d_from=0), terms, Budget())
    (24, 8)
    """
    key, query = _asked(region)
    if key is None or query is None:
        return None
    gaps = Gaps(box_of(region), terms, budget)
    best: Pair | None = None
    doubt: float = INFINITY  # rows before this one are settled
    while True:
        try:
            gap = gaps.next(min(INFINITY if best is None else best[0], doubt))
        except Undecided as stop:
            doubt = min(doubt, stop.decided)
            break
        if gap is None:
            break
        try:
            found = _smallest(gap.box, key | gap.key, query | gap.query, budget)
        except Undecided as stop:
            doubt, found = min(doubt, stop.decided), stop.known
        if found is not None and (best is None or found < best):
            best = found
    if doubt == INFINITY or (best is not None and best[0] < doubt):
        return best
    raise Undecided(int(doubt), best)


def _asked(region: Term) -> tuple[frozenset[Arc] | None, frozenset[Arc] | None]:
    """(key arcs, query arcs) that exclude everything outside the region's own residue; (None, None) when no pair has
    that residue."""
    if region.width >= region.every:
        return frozenset(), frozenset()
    if region.width <= 0:
        return None, None
    rest = complement((region.every, region.offset, region.width))
    arcs = frozenset(() if rest is None else (rest,))
    return (arcs, frozenset()) if region.anchor == KEY else (frozenset(), arcs)


def _smallest(box: Box, key: frozenset[Arc], query: frozenset[Arc], budget: Budget) -> Pair | None:
    """The smallest pair of a tight box with j outside the key arcs and i - j outside the query arcs.

    Row i0 is tried first. After it, the smallest column (only key arcs) or distance (only query arcs) that comes
    into sight as the row grows decides: what row i0 saw and did not take can only go out of sight.
    """
    i0, j0, d0 = int(box.i0), int(box.j0), box.d0
    if not query:
        j = _bounded(first_free, key, int(max(j0, i0 - box.d1 + 1)), min(box.j1, i0 - d0 + 1), budget, i0)
        if j is not None:
            return i0, j
        if d0 == -INFINITY:
            return None
        j = _lifted(key, int(max(j0, i0 - d0 + 1)), box.j1, budget, lambda j: (j + int(d0), j), int(d0))
        return (j + int(d0), j) if j is not None and j + d0 < box.i1 else None
    if not key:
        low, high = max(d0, i0 - box.j1 + 1), int(min(box.d1, i0 - j0 + 1))
        d = _bounded(last_free, query, low, high, budget, i0)
        if d is not None:
            return i0, i0 - d
        d = _lifted(query, int(max(d0, i0 - j0 + 1)), box.d1, budget, lambda d: (d + j0, j0), j0)
        return (d + j0, j0) if d is not None and d + j0 < box.i1 else None
    if d0 != -INFINITY:
        j = _lifted(key, j0, box.j1, budget, lambda j: None, int(d0))
        d = None if j is None else _lifted(query, int(d0), box.d1, budget, lambda d: None, j)
        if j is None or d is None or j + d >= box.i1:
            return None
        if j + d >= i0:
            return j + d, j
    return _both(box, key, query, budget)


def _bounded(
    search: Callable[..., int | None], arcs: frozenset[Arc], low: float, high: float, budget: Budget, row: int
) -> int | None:
    """`search`, whose Undecided says that the rows before `row` are settled."""
    if low >= high:
        return None
    try:
        return search(arcs, low, high, budget)
    except Undecided as stop:
        known = stop.known
        raise Undecided(row, None if known is None else (row, known if search is first_free else row + known)) from None


def _lifted(
    arcs: frozenset[Arc], low: int, high: float, budget: Budget, pair: Callable[[int], Pair | None], lift: int
) -> int | None:
    """`first_free`, whose Undecided is turned from integers x into rows x + lift and pairs."""
    try:
        return first_free(arcs, low, high, budget)
    except Undecided as stop:
        raise Undecided(stop.decided + lift, None if stop.known is None else pair(stop.known)) from None


def _both(box: Box, key: frozenset[Arc], query: frozenset[Arc], budget: Budget) -> Pair | None:
    """`_smallest` row by row, when both residues and the row's lower bound matter.

    With periods P of the columns and Q of the distances, a solution in row i >= i0 + P + Q yields one in an earlier
    row: either its column is >= j0 + P, or its distance is >= d0 + Q, and lowering that by the period keeps row and
    bounds. Within a row the question has period lcm(P, Q) in j.
    """
    keys, queries = merge(key), merge(query)
    if keys is None or queries is None:
        return None
    P, Q = lcm(*(m for m, _ in keys)), lcm(*(m for m, _ in queries))
    i0 = int(box.i0)
    if lcm(P, Q) > budget.sieve:
        raise Undecided(i0)
    for i in range(i0, int(min(box.i1, i0 + P + Q))):
        low = int(max(box.j0, i - box.d1 + 1))
        j = np.arange(low, int(min(box.j1, i - box.d0 + 1, low + lcm(P, Q))))
        free = ~held(keys, j) & ~held(queries, i - j)
        if free.any():
            return i, int(j[np.argmax(free)])
    return None
