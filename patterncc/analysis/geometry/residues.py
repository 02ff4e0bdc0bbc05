"""Which integers no residue arc holds, and the smallest of them.

An arc (m, o, w) holds the integers x with (x - o) mod m < w: what a `stride` part keeps of the columns.

Theorem (residues). Let P be a common multiple of the moduli. Whether x lies in some arc depends on x mod P only, so
the arcs hold every integer of an unbounded interval iff they hold all residues mod P; and if they do not, the smallest
integer x >= low outside every arc is below low + P.
Proof. m | P for every m, so (x + P - o) mod m = (x - o) mod m. If x >= low + P is outside, so is x - P >= low.

P may be astronomically large, so the search goes from cheap to dear: an arc that fills its modulus; jumps from arc end
to arc end; a sieve of the first integers (a system that leaves a gap nearly always leaves a small one); the covering
theorem of `covering`; a longer sieve for the smallest gap once it is known that there is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from patterncc.analysis.geometry.answer import INFINITY
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.covering import Uncovered, uncovered
from patterncc.lazy import np

Arc = tuple[int, int, int]  # (every, offset, width)
HeldRanges = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]  # (modulus, its held residues as [start, stop) ranges)
JUMPS = 64  # jumps before a sieve is cheaper
FIRST = 1 << 12  # integers in the first sieve


@lru_cache(maxsize=4096)
def merge(arcs: frozenset[Arc]) -> HeldRanges | None:
    """The held ranges of each modulus, sorted and disjoint; None when the arcs of one modulus hold everything.

    >>> merge(frozenset({(16, 15, 2), (16, 1, 3), (7, 0, 1)}))
    ((7, ((0, 1),)), (16, ((0, 4), (15, 16))))
    >>> merge(frozenset({(2, 0, 1), (2, 1, 1)})) is None
    True
    """
    ranges: dict[int, list[tuple[int, int]]] = {}
    for every, offset, width in arcs:
        if width >= every:
            return None
        start = offset % every
        stop = start + width
        ranges.setdefault(every, []).append((start, min(stop, every)))
        if stop > every:
            ranges[every].append((0, stop - every))
    merged = []
    for every in sorted(ranges):
        joined: list[tuple[int, int]] = []
        for start, stop in sorted(ranges[every]):
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
            else:
                joined.append((start, stop))
        if joined == [(0, every)]:
            return None
        merged.append((every, tuple(joined)))
    return tuple(merged)


def complement(arc: Arc) -> Arc | None:
    """The arc that holds exactly what this one does not; None when there is nothing left.

    >>> complement((16, 3, 1))
    (16, 4, 15)
    """
    every, offset, width = arc
    return (every, (offset + width) % every, every - width) if width < every else None


def held(held_ranges: HeldRanges, x: np.ndarray) -> np.ndarray:
    """Whether some arc holds x, elementwise."""
    inside = np.zeros(x.shape, bool)
    for every, ranges in held_ranges:
        residue = x % every
        for start, stop in ranges:
            inside |= (residue >= start) & (residue < stop)
    return inside


def sieve(held_ranges: HeldRanges, low: int, count: int) -> np.ndarray:
    """`held` of the integers low .. low + count - 1, by marking slices.

    >>> sieve(merge(frozenset({(3, 0, 1), (4, 1, 1)})), 10, 6).tolist()
    [False, False, True, True, False, True]
    """
    inside = np.zeros(count, bool)
    for every, ranges in held_ranges:
        first = low % every
        if every <= count:
            period = np.zeros(every, bool)
            for start, stop in ranges:
                period[start:stop] = True
            whole = (count // every) * every
            turned = np.roll(period, -first)
            inside[:whole].reshape(-1, every)[:] |= turned
            inside[whole:] |= turned[: count - whole]
        else:
            for start, stop in ranges:
                for begin in (start - first, start - first + every):
                    inside[max(begin, 0) : max(begin + stop - start, 0)] = True
    return inside


@lru_cache(maxsize=16384)
def first_free(arcs: frozenset[Arc], low: int, high: float, budget: Budget) -> int | None:
    """The smallest x, low <= x < high, that no arc holds; None when it is proved that there is none.

    Raises Undecided(x, known) when the budget ends: nothing below x is free; known is free, if it is not None.

    >>> first_free(frozenset({(2, 0, 1), (3, 0, 1)}), 2, INFINITY, Budget())
    5
    >>> first_free(frozenset({(2, 0, 1), (4, 1, 1), (4, 3, 1)}), 0, INFINITY, Budget()) is None
    True
    """
    if low >= high:
        return None
    if not arcs:
        return low
    held_ranges = merge(arcs)
    if held_ranges is None:
        return None
    x = _jump(held_ranges, low, high)
    if x is not None:
        return x if x < high else None
    count = int(min(FIRST, high - low))
    while True:  # at most three rounds: a short sieve, then the proof, then the long one
        inside = sieve(held_ranges, low, count)
        at = int(np.argmin(inside))
        if not inside[at]:
            return low + at
        if low + count >= high:
            return None
        if count >= min(budget.sieve, FIRST * 16):
            break
        count = int(min(count * 16, high - low))
    known = None
    try:
        left = _left(held_ranges, budget)
        if not left.classes:
            return None
        known = left.smallest(low)
        if left.complete:
            return known if known < high else None
    except Undecided:
        pass  # not known whether there is a gap: look on, as far as the budget goes
    return _scan(held_ranges, low + count, high, known, budget)


def fill(arcs: frozenset[Arc], budget: Budget) -> bool:
    """Whether the arcs are proved to hold every integer; looks less far than `first_free` when they do not.

    >>> fill(frozenset({(2, 0, 1), (4, 1, 1), (4, 3, 1)}), Budget())
    True
    """
    held_ranges = merge(arcs)
    if held_ranges is None:
        return True
    if _density(held_ranges) < 0.999 or _jump(held_ranges, 0, INFINITY) is not None:
        return False
    if not sieve(held_ranges, 0, min(budget.sieve, FIRST * 16)).all():
        return False
    try:
        return not _left(held_ranges, budget).classes
    except Undecided:
        return False


@lru_cache(maxsize=256)
def _left(held_ranges: HeldRanges, budget: Budget) -> Uncovered:
    return uncovered(held_ranges, budget)


def _density(held_ranges: HeldRanges) -> float:
    """The share of the integers that the arcs would hold if they were disjoint."""
    return sum((stop - start) / every for every, ranges in held_ranges for start, stop in ranges)


def last_free(arcs: frozenset[Arc], low: float, high: int, budget: Budget) -> int | None:
    """The largest x, low <= x < high, that no arc holds (x -> -x turns it into `first_free`).

    >>> last_free(frozenset({(4, 3, 1)}), 0, 4, Budget())
    2
    """
    mirrored = frozenset((every, (1 - offset - width) % every, width) for every, offset, width in arcs)
    found = first_free(mirrored, 1 - high, 1 - low, budget)
    return None if found is None else -found


def arcs_of(pairs: Iterable[tuple[int, int, int]]) -> frozenset[Arc]:
    """Arcs with offsets reduced modulo their stride."""
    return frozenset((every, offset % every, width) for every, offset, width in pairs)


def _jump(held_ranges: HeldRanges, x: int, high: float) -> int | None:
    """The smallest free integer from x on (>= high: none before it), or None when JUMPS jumps did not find it."""
    for _ in range(JUMPS):
        for every, ranges in held_ranges:
            residue = x % every
            stop = next((stop for start, stop in ranges if start <= residue < stop), None)
            if stop is not None:
                x += stop - residue
                break
        else:
            return x
        if x >= high:
            return x
    return None


def _scan(held_ranges: HeldRanges, low: int, high: float, known: int | None, budget: Budget) -> int | None:
    end = min(high, low + budget.scan // len(held_ranges))
    count = 1 << 16
    while low < end:
        count = int(min(count, end - low))
        inside = sieve(held_ranges, low, count)
        at = int(np.argmin(inside))
        if not inside[at]:
            return low + at
        low += count
        count = min(4 * count, 1 << 22)
    if low >= high:
        return None
    raise Undecided(low, known if known is not None and known < high else None)
