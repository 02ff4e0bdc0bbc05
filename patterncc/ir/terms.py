"""The algebra of terms: when one contains another, and the shortest way to write a union of them.

Inside this file a term is a box, its ranges of d, j and i with infinite ends, and a wheel, (every, offset, width,
anchor): plain tuples, because a pattern may have thousands of layouts with thousands of terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd, inf

from patterncc.ir.layout import KEY, Term
from patterncc.ir.tokens import empty
from patterncc.ir.wheels import FULL, Wheel, joined_wheels

Span = tuple[float, float]  # low <= x < high
Box = tuple[Span, ...]  # of d, j, i
Rule = tuple[Box, Wheel]

AXES = (D, J, I) = range(3)  # noqa: E741
LINE: Span = (-inf, inf)
SPACE: Box = (LINE, LINE, LINE)


def simplify(terms: Iterable[Term], *, causal: bool) -> tuple[Term, ...]:
    """The same union, each term as wide as the others allow, none inside another, sorted.

    >>> terms = "16<=d & j%16==3 | d<8 | 8<=d<16 | d<12 & (i-j)%2==0 | j%4==0 | j%4==2".split(" | ")
    >>> [str(term) for term in simplify(map(Term.parse, terms), causal=True)]
    ['d<16', 'j%2==0', 'j%16==3']
    """
    now = _without_inner({_clipped(term, causal) for term in terms if not empty(term, causal)})
    seen: list[set[Rule]] = []
    while now not in seen:
        seen.append(now)
        lists = {rule for rule in now if _is_list(rule)}
        rules = now - lists
        for axis in AXES:
            rules = _join_ranges(rules, axis)
        now = _absorb(_join_residues(rules), _join_ranges(_join_ranges(lists, J), I))
    return tuple(_term(rule) for rule in sorted(now, key=_order) if not _is_hollow(rule, causal))


def contains(outer: Term, inner: Term) -> bool:
    """Whether every block that `inner` keeps is seen, from the bounds and residues alone, to be kept by `outer`.

    >>> contains(Term.parse("j%4 in 0:3"), Term.parse("d<9 & j%2==0")), contains(Term.parse("d<9"), Term.parse("j<1"))
    (True, False)
    """
    return _contains(_rule(outer), _rule(inner))


def _contains(outer: Rule, inner: Rule) -> bool:
    return _holds(outer[0], inner[0]) and _wheel_contains(outer[1], inner[1])


def _holds(outer: Box, inner: Box) -> bool:
    """Whether the ranges of one box lie within those of the other."""
    (d, j, i), (inner_d, inner_j, inner_i) = outer, inner
    return (
        d[0] <= inner_d[0]
        and inner_d[1] <= d[1]
        and j[0] <= inner_j[0]
        and inner_j[1] <= j[1]
        and i[0] <= inner_i[0]
        and inner_i[1] <= i[1]
    )


def _wheel_contains(outer: Wheel, inner: Wheel) -> bool:
    """x mod every in inner's residues implies x mod every in outer's: decided modulo the gcd of both."""
    if outer[0] == 1 or outer == inner:
        return True
    every, offset, width, anchor = outer
    common = gcd(every, inner[0])
    gap_from, gap = offset + width, every - width  # the residues that outer leaves out
    if inner[0] == 1 or inner[3] != anchor:
        return False
    return (gap_from - inner[1]) % common >= inner[2] and (inner[1] - gap_from) % common >= gap


def _clipped(term: Term, causal: bool) -> Rule:
    """The term without bounds and residues that exclude nothing, and with its offset reduced."""
    (d, j, i), (every, offset, width, anchor) = _rule(term)
    d = (-inf if causal and d[0] <= 0 else d[0], d[1])
    j = (-inf if j[0] <= 0 else j[0], j[1])
    return (d, j, i), FULL if width >= every else (every, offset % every, width, anchor)


def _is_hollow(rule: Rule, causal: bool) -> bool:
    """Whether the bounds of the axis that the residue is about leave out every member of the residue.

    It is asked last: a part without members may be what joins two others.

    >>> [_is_hollow(_rule(Term.parse(text)), True) for text in ("d<1 & (i-j)%2==1", "4<=j<8 & j%4==3", "j<4 & j%8==4")]
    [True, False, True]
    """
    (d, j, _), (every, offset, width, anchor) = rule
    low, high = j if anchor == KEY else d
    if low == -inf and (anchor == KEY or causal):
        low = 0
    if low == -inf or high == inf or width >= every:
        return False
    first = (int(low) - offset) % every  # where in the period the range begins
    return first >= width and int(low) + every - first >= high


def _is_list(rule: Rule) -> bool:
    """Some rows, or some columns, and no other condition: `globals` gives thousands of these."""
    (d, j, i), wheel = rule
    return wheel == FULL and d == LINE and (j == LINE) != (i == LINE)


def _join_residues(rules: Iterable[Rule]) -> set[Rule]:
    """Rules that differ only in their residues: these joined, and written anew by short wheels, which may hold what
    rules with wider bounds keep, and need not."""
    groups: dict[tuple[Box, int, str], list[Wheel]] = {}
    for box, wheel in rules:
        groups.setdefault((box, wheel[0], wheel[3]), []).append(wheel)
    places: dict[tuple[Box, str], list[Wheel]] = {}
    for (box, every, anchor), wheels in groups.items():
        period, runs = every, [wheel[1:3] for wheel in wheels]
        if len(wheels) > 1:
            period, runs = _shortest_period(every, _joined_runs(every, runs))
        of_box = places.setdefault((box, anchor), [])
        of_box += [FULL if width >= period else (period, offset, width, anchor) for offset, width in runs]
    joined: set[Rule] = set()
    for (box, anchor), wheels in places.items():
        wider = [place for place in places if place[1] == anchor and place[0] != box and _holds(place[0], box)]
        beside = [wheel for place in wider for wheel in places[place]]
        shortest = joined_wheels(wheels, beside) if len(wheels) + len(beside) > 1 else None
        joined |= {(box, wheel) for wheel in (wheels if shortest is None else shortest)}
    return joined


def _joined_runs(every: int, runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Disjoint (offset, width) of a union of residues, none touching the next, going around at `every`."""
    spans = [(offset, min(offset + width, every)) for offset, width in runs]
    spans += [(0, offset + width - every) for offset, width in runs if offset + width > every]
    joined = [(int(low), int(high - low)) for low, high in _union(spans)]
    if len(joined) > 1 and joined[0][0] == 0 and sum(joined[-1]) == every:
        offset, width = joined.pop()
        joined[0] = (offset, width + joined[0][1])
    return joined


def _shortest_period(every: int, runs: list[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """The smallest period of the same residues: what repeats q times has a multiple of q runs."""
    q = 2
    while q <= len(runs):
        shift = every // q
        if every % q == 0 and {((offset + shift) % every, width) for offset, width in runs} == set(runs):
            every, runs = shift, [(offset % shift, width) for offset, width in runs if offset < shift]
        else:
            q += 1
    return every, runs


def _join_ranges(rules: set[Rule], axis: int) -> set[Rule]:
    """Rules that differ only in one range: overlapping and adjacent ranges joined."""
    if all(box[axis] == LINE for box, _ in rules):
        return rules
    groups: dict[Rule, list[Span]] = {}
    for box, wheel in rules:
        groups.setdefault((_with(box, axis, LINE), wheel), []).append(box[axis])
    return {(_with(box, axis, span), wheel) for (box, wheel), spans in groups.items() for span in _union(spans)}


def _without_inner(rules: set[Rule]) -> set[Rule]:
    """The rules without those inside another one of wider bounds; lists are left."""
    lists = {rule for rule in rules if _is_list(rule)}
    boxes: dict[Box, list[Wheel]] = {}
    for box, wheel in rules - lists:
        boxes.setdefault(box, []).append(wheel)
    for box, wheels in boxes.items():
        beside = [outer for wider in boxes if wider != box and _holds(wider, box) for outer in boxes[wider]]
        boxes[box] = [wheel for wheel in wheels if not any(_wheel_contains(outer, wheel) for outer in beside)]
    return lists | {(box, wheel) for box, wheels in boxes.items() for wheel in wheels}


def _absorb(rules: set[Rule], lists: set[Rule]) -> set[Rule]:
    """The rules, each widened over the pairs beside it that another rule keeps, then without those inside another."""
    if (SPACE, FULL) in rules | lists:
        return {(SPACE, FULL)}
    near = sorted(rules, key=_order)  # sets have no order of their own, results must
    wide = {_widened(rule, near if _is_free(rule) else [*near, *sorted(lists, key=_order)]) for rule in near}
    kept = set(lists)  # no rule contains a list: that would take a rule without conditions
    for inner in wide:
        if not any(outer != inner and _contains(outer, inner) for outer in (wide if _is_free(inner) else wide | lists)):
            kept.add(inner)
    return kept


def _is_free(rule: Rule) -> bool:
    """Whether the rule has no bounds on rows or columns: then no list lies beside it or contains it."""
    return rule[0][J] == rule[0][I] == LINE


def _widened(rule: Rule, others: list[Rule]) -> Rule:
    box, wheel = rule
    for axis in AXES:
        before = LINE
        while box[axis] not in (before, LINE):  # in whatever order the others come, until none widens it further
            before = box[axis]
            for other, turning in others:
                (low, high), (start, stop) = box[axis], other[axis]
                beside = start <= high and low <= stop and (start < low or stop > high)
                if beside and _contains((_with(other, axis, LINE), turning), (_with(box, axis, LINE), wheel)):
                    box = _with(box, axis, (min(low, start), max(high, stop)))
    return box, wheel


def _union(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return joined


def _with(box: Box, axis: int, span: Span) -> Box:
    return (*box[:axis], span, *box[axis + 1 :])


def _order(rule: Rule) -> tuple[int, str, Box, int, int]:
    box, (every, offset, width, anchor) = rule
    return every, anchor, box, offset, width


def _rule(term: Term) -> Rule:
    ends = ((term.d_from, term.d_to), (term.j_from, term.j_to), (term.i_from, term.i_to))
    box = tuple((-inf if low is None else low, inf if high is None else high) for low, high in ends)
    return box, (term.every, term.offset, term.width, term.anchor)


def _term(rule: Rule) -> Term:
    (d, j, i), wheel = rule
    return Term(*_ends(d), *_ends(j), *_ends(i), *wheel)


def _ends(span: Span) -> tuple[int | None, int | None]:
    low, high = span
    return None if low == -inf else int(low), None if high == inf else int(high)
