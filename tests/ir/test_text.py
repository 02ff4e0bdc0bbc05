"""Whatever the IR prints it reads back, and what it did not print it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterncc.ir.classes import Classes, Layouts
from patterncc.ir.closed import Band, ClosedForm
from patterncc.ir.layout import Layout, Term
from patterncc.ir.table import MOST_ENTRIES, MOST_ROWS, Table, check_size
from tests.strategies import layouts, terms


@given(terms())
def test_terms(term: Term) -> None:
    assert Term.parse(str(term)) == term


@given(layouts())
def test_layouts(layout: Layout) -> None:
    assert Layout.parse(str(layout)) == layout


scores = st.tuples(st.sampled_from([0.0, 2.5]), st.booleans(), st.sampled_from([0, 24, 96]))


@given(st.lists(layouts(), min_size=1, max_size=4), st.data(), st.booleans(), scores)
def test_classes(some: list[Layout], data: st.DataObject, causal: bool, rest: tuple[float, bool, int]) -> None:
    numbers = st.integers(0, len(some) - 1)
    of = data.draw(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=6))
    classes = Classes("drawn", 16, causal, 64, 4, 2, tuple(some), tuple(of), *rest)
    assert classes.v_head_dim == (rest[2] or 64) and Classes.parse(str(classes)) == classes
    of_heads = Layouts(tuple(some), tuple(of))
    assert Layouts.parse(str(of_heads)) == of_heads


@given(st.lists(st.sets(st.integers(0, 40)).map(sorted), max_size=8))
def test_tables(rows: list[list[int]]) -> None:
    table = Table.of(rows)
    assert table.tolist() == rows
    assert Table.parse(str(table)) == table
    assert table.entries == sum(map(len, rows))


bounds = st.none() | st.integers(-99, 99)
residues = st.integers(2, 70).flatmap(
    lambda every: st.tuples(st.just(every), st.sets(st.integers(0, every - 1), min_size=1).map(sorted).map(tuple))
)


@given(st.integers(0, 9), st.lists(st.tuples(bounds, bounds, residues | st.just((1, (0,))), st.booleans()), max_size=4))
def test_closed_forms(sink: int, drawn: list[tuple[int | None, int | None, tuple[int, tuple[int, ...]], bool]]) -> None:
    bands = tuple(
        Band(low, high, every, residues, "i-j" if query and every > 1 else "j")
        for low, high, (every, residues), query in drawn
    )
    form = ClosedForm(sink, bands)
    assert ClosedForm.parse(str(form)) == form


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (Term.parse, "d<<3"),
        (Term.parse, "k<3"),
        (Term.parse, "j%4"),
        (Layout.parse, "d<3 | windows 1,1 tokens"),
        (Band.parse, "0<=d<3 & "),
        (Band.parse, ""),
        (ClosedForm.parse, "j<1 | "),
        (Table.parse, "1: 0"),
        (Table.parse, "0: 0\n2: 0"),
        (Table.parse, "0: a"),
        (Classes.parse, "demo: block 64"),
    ],
)
def test_what_was_not_printed(parse: object, text: str) -> None:
    with pytest.raises(ValueError, match="not "):
        parse(text)  # type: ignore[operator]


def test_tables_compare_by_what_they_list() -> None:
    assert Table.of([[1], [2]]) != Table.of([[1, 2], []])
    assert Table.of([[1], [2]]) != Table.of([[1], [3]])
    assert Table.of([]) == Table.parse("")
    assert Table.of([[1]]) != [[1]]


def test_tables_beyond_any_machine() -> None:
    with pytest.raises(Exception, match="blocks; the most is"):
        check_size(MOST_ROWS + 1, 1)
    with pytest.raises(Exception, match="entries; the most is"):
        check_size(1, 1, MOST_ENTRIES + 1)
