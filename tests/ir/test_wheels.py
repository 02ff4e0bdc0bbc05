"""Unions of residues are written in one way, whatever wheels they are given by: held against sets of numbers."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from patterncc.ir.layout import KEY, QUERY
from patterncc.ir.wheels import LONGEST, Wheel, joined_wheels

PERIODS = (2, 3, 4, 6, 8, 12)  # in common 24; three times as long, they still have a common one that is written out
LINE = 24


def held(wheels: list[Wheel]) -> frozenset[int]:
    return frozenset(x for x in range(LINE) if any((x - w[1]) % w[0] < w[2] for w in wheels))


@st.composite
def wheels(draw: st.DrawFn, anchor: str = KEY) -> Wheel:
    every = draw(st.sampled_from(PERIODS))
    return every, draw(st.integers(0, every - 1)), draw(st.integers(1, every - 1)), anchor


def test_one_form_for_each_set_of_residues() -> None:
    """Every union of two wheels whose periods divide 12 (the widths 1, 2 and all but one), by sets."""
    known = [(e, o, w, KEY) for e in (2, 3, 4, 6, 12) for o, w in product(range(e), range(1, e)) if w in (1, 2, e - 1)]
    forms: dict[frozenset[int], list[Wheel]] = {}
    sets = {wheel: frozenset(x for x in range(12) if (x - wheel[1]) % wheel[0] < wheel[2]) for wheel in known}
    for count in (1, 2):
        for some in combinations(known, count):
            kept = frozenset().union(*(sets[wheel] for wheel in some))
            form = joined_wheels(some)
            assert form is not None and forms.setdefault(kept, form) == form, some
    assert len(forms) > 500


@given(st.lists(wheels(), min_size=1, max_size=5), st.lists(wheels(), max_size=3))
def test_joining_keeps_what_is_held(given_wheels: list[Wheel], beside: list[Wheel]) -> None:
    joined = joined_wheels(given_wheels, beside)
    assert joined is not None
    own, other = held(given_wheels), held(beside)
    assert own - other <= held(joined) <= own | other
    assert all(held(joined[:n] + joined[n + 1 :] + beside) < own | other for n in range(len(joined)))  # none is idle


@given(st.lists(wheels(QUERY), min_size=1, max_size=4), st.lists(wheels(QUERY), max_size=2), st.data())
def test_the_form_depends_on_the_set_alone(given_wheels: list[Wheel], beside: list[Wheel], data: st.DataObject) -> None:
    """Periods doubled or tripled, and wheels cut, in any order."""
    rewritten: list[Wheel] = []
    for every, offset, width, anchor in given_wheels:
        turns, cut = data.draw(st.integers(1, 3)), data.draw(st.integers(0, width))
        for n in range(turns):
            rewritten += [(every * turns, offset + n * every, cut, anchor)] if cut else []
            rewritten += [(every * turns, offset + n * every + cut, width - cut, anchor)] if cut < width else []
    again = joined_wheels(data.draw(st.permutations(rewritten)), beside)
    assert again == joined_wheels(given_wheels, beside)


def test_a_long_common_period_is_not_written_out() -> None:
    assert joined_wheels([(LONGEST, 0, 1, KEY), (LONGEST - 1, 0, 1, KEY)]) is None
