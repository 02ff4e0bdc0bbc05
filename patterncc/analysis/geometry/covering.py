"""Which integers no residue arc holds, over all integers: the covering theorems.

Theorem (components). Let the moduli be the vertices of a graph, joined when they share a factor > 1. The arcs hold
every integer iff the arcs of ONE connected component do.
Proof. If one component's do, all do. Otherwise choose for each component c an integer x_c outside its arcs; it may be
changed by any multiple of L_c, the least common multiple of the component's moduli. The L_c are pairwise coprime, so by
the Chinese remainder theorem one x agrees with x_c modulo L_c for all c, and x is outside every arc.

So the cost is that of the largest component, not of the least common multiple of all strides: 7, 11, 13 and 16 cost
7 + 11 + 13 + 16 residues, not 16,016.

Theorem (descent). Among the integers x = r (mod M), membership in an arc of modulus m has period m / gcd(m, M) in (x
- r) / M. So split on the prime that divides most of these open moduli, drop the arcs that no x = r (mod M) meets, and
apply the components theorem again below.
Proof. With x = r + M y, x mod m depends on M y mod m, whose period in y is m / gcd(m, M); a prime's residues are all
cases.

Covering by residue classes is co-NP-complete, so some system exceeds every budget; that is reported, not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import gcd, lcm

from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.lazy import np

HeldRanges = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]  # (modulus, its held residues as [start, stop) ranges)
CLASSES = 4096  # uncovered classes that are listed; beyond, gaps are dense enough for a scan
WIDE = 64  # a prime above this is not split when a gap is in sight
FEW = 256  # residues of a sieve that is done without numpy


@dataclass(frozen=True)
class Uncovered:
    """Disjoint classes x mod P that no arc meets; `complete` when they are all that is left."""

    classes: tuple[tuple[int, int], ...]
    complete: bool = True

    def smallest(self, low: int) -> int:
        """The smallest listed integer from `low` on."""
        return min(low + (x - low) % P for x, P in self.classes)


@dataclass
class _Search:
    budget: Budget
    nodes: int = field(default=0)

    def step(self) -> None:
        self.nodes += 1
        if self.nodes > self.budget.nodes:
            raise Undecided(0)


def components(moduli: list[int]) -> list[list[int]]:
    """The moduli, grouped by shared factors, cheapest group first.

    >>> components([16, 7, 12, 11, 9])
    [[7], [11], [9, 12, 16]]
    """
    groups: list[tuple[int, list[int]]] = []
    for m in sorted(moduli):
        joined = [g for g in groups if gcd(g[0], m) > 1]
        groups = [g for g in groups if g not in joined]
        groups.append((lcm(m, *(g[0] for g in joined)), sorted([m, *(x for g in joined for x in g[1])])))
    return [members for _, members in sorted(groups)]


def uncovered(held_ranges: HeldRanges, budget: Budget) -> Uncovered:
    """The integers that no arc holds, as residue classes; no classes when the arcs hold every integer. Raises
    Undecided when the budget ends.

    >>> uncovered(((2, ((0, 1),)), (3, ((0, 1),))), Budget())
    Uncovered(classes=((1, 6), (5, 6)), complete=True)
    >>> uncovered(((2, ((0, 1),)), (4, ((1, 2), (3, 4)))), Budget()).classes
    ()
    """
    return _descend(held_ranges, 0, 1, _Search(budget))


def _descend(held_ranges: HeldRanges, r: int, M: int, search: _Search) -> Uncovered:
    """The classes of y for which r + M y is never held."""
    search.step()
    live: dict[int, list[tuple[int, tuple[tuple[int, int], ...]]]] = {}
    for m, ranges in held_ranges:
        g = gcd(m, M)
        meets = tuple((start, stop) for start, stop in ranges if (r - start) % g < stop - start)
        if meets and g == m:
            return Uncovered(())
        if meets:
            live.setdefault(m // g, []).append((m, meets))
    left = Uncovered(((0, 1),))
    unknown = False
    for group in components(list(live)):
        try:
            part = _component(tuple(x for m in group for x in live[m]), group, r, M, search)
        except Undecided:
            unknown = True  # another component may still hold everything
            continue
        if not part.classes:
            return part
        left = _both(left, part)
    if unknown:
        raise Undecided(0)
    return left


def _component(members: HeldRanges, open_moduli: list[int], r: int, M: int, search: _Search) -> Uncovered:
    """`_descend` for arcs whose open moduli are connected."""
    P = lcm(*open_moduli)
    if search.budget.sieve >= P:
        free = _free(members, r, M, P) if P <= FEW else np.flatnonzero(~_marked(members, r, M, P))
        return _listed(free, P)
    p = _common_prime(open_moduli)
    if p > WIDE:
        free = np.flatnonzero(~_marked(members, r, M, 1 << 12))
        if free.size:
            return Uncovered(((int(free[0]), P),), complete=False)
    classes: list[tuple[int, int]] = []
    complete, unknown = True, False
    for c in range(p):
        try:
            part = _descend(members, r + c * M, M * p, search)
        except Undecided:
            unknown = True
            break
        complete &= part.complete
        classes += ((c + p * y, p * P) for y, P in part.classes)
        if len(classes) > CLASSES:
            complete = False
            break
    if unknown and not classes:
        raise Undecided(0)
    return Uncovered(tuple(classes), complete and not unknown)


def _marked(members: HeldRanges, r: int, M: int, count: int) -> np.ndarray:
    """Whether r + M y is held, for y = 0 .. count - 1."""
    inside = np.zeros(count, bool)
    for m, ranges in members:
        period = min(m // gcd(m, M), count)
        y = np.arange(period, dtype=np.int64 if m < 1 << 42 else object)
        residue = (r % m + (M % m) * y) % m
        held = np.zeros(period, bool)
        for start, stop in ranges:
            held |= ((residue >= start) & (residue < stop)).astype(bool)
        whole = count // period * period
        inside[:whole].reshape(-1, period)[:] |= held
        inside[whole:] |= held[: count - whole]
    return inside


def _free(members: HeldRanges, r: int, M: int, count: int) -> list[int]:
    """The y = 0 .. count - 1 for which r + M y is not held; few of them: numpy's import takes longer."""
    arcs = [(m, start, stop) for m, ranges in members for start, stop in ranges]
    return [y for y in range(count) if not any(start <= (r + M * y) % m < stop for m, start, stop in arcs)]


def _listed(free: Sequence[int] | np.ndarray, P: int) -> Uncovered:
    return Uncovered(tuple((int(y), P) for y in free[:CLASSES]), len(free) <= CLASSES)


def _both(a: Uncovered, b: Uncovered) -> Uncovered:
    """The classes in both, for coprime moduli."""
    classes = []
    for x, P in a.classes:
        for y, Q in b.classes:
            classes.append((x + P * ((y - x) * pow(P, -1, Q) % Q) if Q > 1 else x, P * Q))
            if len(classes) > CLASSES:
                return Uncovered(tuple(classes), complete=False)
    return Uncovered(tuple(classes), a.complete and b.complete)


def _common_prime(moduli: list[int]) -> int:
    """The prime that divides most of the moduli, the smallest of several."""
    votes: dict[int, int] = {}
    for m in moduli:
        p = 2
        while p * p <= m:
            if m % p == 0:
                votes[p] = votes.get(p, 0) + 1
                while m % p == 0:
                    m //= p
            p += 1
        if m > 1:
            votes[m] = votes.get(m, 0) + 1
    return min(votes, key=lambda p: (-votes[p], p))
