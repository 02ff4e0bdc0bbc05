"""The algebra of terms: when one contains another, and the shortest way to write a union of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from math import gcd, inf

from patterncc.ir.layout import KEY, Term
from patterncc.ir.tokens import empty

AXES = ("d", "j", "i")


def simplify(terms: Iterable[Term], *, causal: bool) -> tuple[Term, ...]:
    """The same union, each term as wide as the others allow, none inside another, sorted.

    >>> terms = "16<=d & j%16==3 | d<8 | 8<=d<16 | d<12 & (i-j)%2==0 | j%4==0 | j%4==2".split(" | ")
    >>> [str(term) for term in simplify(map(Term.parse, terms), causal=True)]
    ['d<16', 'j%2==0', 'j%16==3']
    """
    now = {_clipped(term, causal) for term in terms if not empty(term, causal)}
    before: set[Term] = set()
    while now != before:
        before = now
        now = _join_residues(now)
        for axis in AXES:
            now = _join_ranges(now, axis)
        now = _absorb(now)
    return tuple(sorted(now, key=_order))


def contains(outer: Term, inner: Term) -> bool:
    """Whether every block that `inner` keeps is seen, from the bounds and residues alone, to be kept by `outer`.

    >>> contains(Term.parse("j%4 in 0:3"), Term.parse("d<9 & j%2==0")), contains(Term.parse("d<9"), Term.parse("j<1"))
    (True, False)
    """
    return all(_covers(outer, inner, axis) for axis in AXES) and _residues_contain(outer, inner)


def _residues_contain(outer: Term, inner: Term) -> bool:
    """x mod inner.every in its residues implies x mod outer.every in its: decided modulo their gcd."""
    if outer.every == 1:
        return True
    common = gcd(outer.every, inner.every)
    gap = outer.every - outer.width  # residues that outer leaves out, from offset + width on
    if inner.every == 1 or inner.anchor != outer.anchor or inner.width >= common or gap >= common:
        return False
    gap_from = outer.offset + outer.width
    return (gap_from - inner.offset) % common >= inner.width and (inner.offset - gap_from) % common >= gap


def _clipped(term: Term, causal: bool) -> Term:
    """Without the bounds and residues that exclude nothing, the offset reduced."""
    if term.width >= term.every:
        term = replace(term, every=1, offset=0, width=1, anchor=KEY)
    return replace(
        term,
        offset=term.offset % term.every,
        d_from=None if causal and (term.d_from or 0) <= 0 else term.d_from,
        j_from=None if (term.j_from or 0) <= 0 else term.j_from,
    )


def _join_residues(terms: set[Term]) -> set[Term]:
    """Terms that differ only in offset and width: their residues joined, their period reduced."""
    groups: dict[Term, list[Term]] = {}
    for term in terms:
        groups.setdefault(replace(term, offset=0, width=1), []).append(term)
    joined: set[Term] = set()
    for key, group in groups.items():
        if len(group) == 1 or key.every == 1:
            joined.update(group)
            continue
        every, runs = _shortest_period(key.every, _joined_runs(key.every, group))
        for offset, width in runs:
            whole = width >= every
            joined.add(
                replace(key, every=1, anchor=KEY) if whole else replace(key, every=every, offset=offset, width=width)
            )
    return joined


def _joined_runs(every: int, group: list[Term]) -> list[tuple[int, int]]:
    """Disjoint (offset, width) of a union of residues, none touching the next, going around at `every`."""
    spans = [(t.offset, min(t.offset + t.width, every)) for t in group]
    spans += [(0, t.offset + t.width - every) for t in group if t.offset + t.width > every]
    runs = _union([(float(low), float(high)) for low, high in spans])
    cyclic = [(int(low), int(high - low)) for low, high in runs]
    if len(cyclic) > 1 and cyclic[0][0] == 0 and sum(cyclic[-1]) == every:
        offset, width = cyclic.pop()
        cyclic[0] = (offset, width + cyclic[0][1])
    return cyclic


def _shortest_period(every: int, runs: list[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """The smallest period of the same residues: n runs can repeat only q times within it where q divides n."""
    q = 2
    while q <= len(runs):
        shift = every // q
        if every % q == 0 and {((offset + shift) % every, width) for offset, width in runs} == set(runs):
            every, runs = shift, [run for run in runs if run[0] < shift]
        else:
            q += 1
    return every, runs


def _join_ranges(terms: set[Term], axis: str) -> set[Term]:
    """Terms that differ only in one range: overlapping and adjacent ranges joined."""
    groups: dict[Term, list[tuple[float, float]]] = {}
    for term in terms:
        groups.setdefault(_with(term, axis, -inf, inf), []).append(_range(term, axis))
    return {_with(key, axis, *span) for key, spans in groups.items() for span in _union(spans)}


def _absorb(terms: set[Term]) -> set[Term]:
    """Each term widened over what another already keeps beside it; then those inside another left out."""
    if Term() in terms:
        return {Term()}
    # Single rows and columns (globals) can be thousands; only "all" contains them, and each other is joined already.
    lists = {t for t in terms if t.every == 1 and (t.d_from, t.d_to) == (None, None)}
    rules = {_widened(term, terms - lists) for term in terms - lists}
    bounded = {t for t in rules if (t.j_from, t.j_to, t.i_from, t.i_to) != (None,) * 4}
    others = [(inner, rules | lists if inner in bounded else rules) for inner in rules]
    kept = {inner for inner, outers in others if not any(o != inner and contains(o, inner) for o in outers)}
    return kept | lists


def _widened(term: Term, others: set[Term]) -> Term:
    for axis, other in product(AXES, sorted(others, key=_order)):
        low, high = _range(term, axis)
        start, stop = _range(other, axis)
        beside = start <= high and low <= stop and (start < low or stop > high)
        if beside and contains(_with(other, axis, -inf, inf), _with(term, axis, -inf, inf)):
            term = _with(term, axis, min(low, start), max(high, stop))
    return term


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined


def _covers(outer: Term, inner: Term, axis: str) -> bool:
    (low, high), (start, stop) = _range(outer, axis), _range(inner, axis)
    return low <= start and stop <= high


def _range(term: Term, axis: str) -> tuple[float, float]:
    low, high = getattr(term, f"{axis}_from"), getattr(term, f"{axis}_to")
    return -inf if low is None else low, inf if high is None else high


def _with(term: Term, axis: str, low: float, high: float) -> Term:
    bounds = {f"{axis}_from": None if low == -inf else int(low), f"{axis}_to": None if high == inf else int(high)}
    return replace(term, **bounds)  # type: ignore[arg-type]


def _order(term: Term) -> tuple[float | str, ...]:
    ranges = [x for axis in AXES for x in _range(term, axis)]
    return (term.every, term.anchor, *ranges, term.offset, term.width)
