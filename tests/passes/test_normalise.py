"""Normalising keeps the meaning, has nothing left to do the second time, and finds equal layouts equal."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterncc.ir.classes import Classes
from patterncc.ir.layout import KEY, QUERY, Layout, Term
from patterncc.ir.terms import contains, simplify
from patterncc.passes.normalise import normal_layout, normalise
from tests.strategies import layouts, terms
from tests.witness import kept_blocks, kept_tokens

BLOCK = 3


def one(*given_layouts: Layout, causal: bool = True) -> Classes:
    heads = len(given_layouts)
    return Classes("drawn", BLOCK, causal, 16, heads, heads, given_layouts, (tuple(range(heads)),))


@given(layouts(), st.booleans())
def test_same_tokens(layout: Layout, causal: bool) -> None:
    normal = normal_layout(layout, causal=causal, block=BLOCK)
    for length in (1, 17, 40):
        sizes = {"causal": causal, "block": BLOCK}
        np.testing.assert_array_equal(kept_tokens(normal, length, **sizes), kept_tokens(layout, length, **sizes))


@given(st.lists(terms(), max_size=6))
def test_same_blocks_before_the_diagonal_too(some: list[Term]) -> None:
    """Not causal, at rows below 0 as well: those of queries that lie before the first key."""
    rows = range(-12, 25)
    before, after = Layout(tuple(some)), Layout(simplify(some, causal=False))
    np.testing.assert_array_equal(kept_blocks(after, rows, 25), kept_blocks(before, rows, 25))


@given(layouts(), st.booleans())
def test_second_time_changes_nothing(layout: Layout, causal: bool) -> None:
    classes = normalise(one(layout, causal=causal))
    assert normalise(classes) == classes
    assert Classes.parse(str(classes)) == classes


@given(layouts(), st.booleans(), st.randoms(use_true_random=False))
def test_rewriting_shares_a_class(layout: Layout, causal: bool, chance: random.Random) -> None:
    """Terms shuffled, repeated, cut in two along a range or a residue, offsets and widths turned full circle."""
    rewritten: list[Term] = []
    for term in layout.terms:
        rewritten += chance.choice([_repeat, _cut_distance, _cut_residue, _circle])(term, chance)
    chance.shuffle(rewritten)
    other = replace(layout, terms=tuple(rewritten))
    assert normalise(one(layout, other, causal=causal)).of == ((0, 0),)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("j%2==0 | j%4 in 0:2", "j%4 in 0:3"),
        ("j%2==0 | j%4 in 1:4", "all"),
        ("j%6==0 | j%6 in 2:5", "j%2==0 | j%3==0"),
        ("j%4 in 0:2 | d<8 & j%2==0", "j%4 in 0:2 | d<8 & j%4==2"),  # what wider bounds keep, too
        ("j%5 in 4:7 | 1<=d & j%5 in 3:5", "j%5 in 4:7 | 1<=d & j%5==3"),
        ("j%5 in 4:7 | 1<=d & j%5 in 1:4", "j%5 in 4:7 | 1<=d & j%5 in 1:4 | 1<=d & j%5==4"),  # inside another first
        ("d<4 & j%2==1 | 4<=d<6 & j%6 in 1:3", "d<4 & j%2==1 | 4<=d<6 & j%6 in 1:3 | 5<=d<6 & j%6==1"),
    ],
)
def test_residues_of_several_periods_share_a_class(text: str, other: str) -> None:
    """With rows that no closed form takes, so that the terms themselves are compared."""
    a, b = (Layout.parse(f"{layout} | 90<=i<91" if layout != "all" else layout) for layout in (text, other))
    assert normalise(one(a, b)).of == ((0, 0),)
    assert normalise(one(a, Layout.parse("j%4 in 1:3 | 90<=i<91"))).of == ((0, 1),)  # the control


@st.composite
def ranges_and_residues(draw: st.DrawFn, anchor: str) -> Layout:
    """A range or two, and a residue or two, of the same number: of distances, or of columns."""
    found = []
    for _ in range(draw(st.integers(1, 2))):
        every, low = draw(st.integers(2, 4)), draw(st.integers(-3, 5))
        residue = {"offset": draw(st.integers(0, every - 1)), "width": draw(st.integers(1, every - 1))}
        found.append(Term(every=every, anchor=anchor, **residue))
        high = low + draw(st.integers(1, 4))
        found.append(Term(j_from=low, j_to=high) if anchor == KEY else Term(d_from=low, d_to=high))
    return Layout(tuple(found))


@given(st.sampled_from([KEY, QUERY]), st.booleans(), st.data())
def test_layouts_share_a_class_where_they_keep_the_same(anchor: str, causal: bool, data: st.DataObject) -> None:
    """Ranges beside and inside runs of residues: equal by the blocks that they keep, else not equal."""
    a, b = data.draw(ranges_and_residues(anchor)), data.draw(ranges_and_residues(anchor))
    masks = [kept_blocks(layout, range(41), 41) for layout in (a, b)]  # bounds below 10, periods of 12 at most
    are_equal = np.array_equal(*(np.tril(mask) if causal else mask for mask in masks))
    assert normalise(one(a, b, causal=causal)).of == ((0, 0 if are_equal else 1),)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("d<8 | (i-j)%16 in 6:9", "d<6 | (i-j)%16 in 6:9"),
        ("d<8 | (i-j)%16 in 6:9", "d<9 | (i-j)%16 in 6:9"),
        ("j<1 | j%8==0", "j%8==0"),
        ("j<1 | 3<=j<5 | j%8 in 1:3", "j<5 | j%8 in 1:3"),
    ],
)
def test_a_range_beside_a_run_of_residues(text: str, other: str) -> None:
    a, b = Layout.parse(text), Layout.parse(other)
    assert normalise(one(a, b)).of == ((0, 0),)
    assert normalise(one(a, Layout.parse(f"{other} | 20<=d<21"))).of == ((0, 1),)  # the control


def test_a_term_without_members_is_left_out() -> None:
    hollow = Layout.parse("1<=d & (i-j)%4 in 1:3 | 0<=d<1 & (i-j)%2==1 | chunk 2")
    plain = Layout.parse("1<=d & (i-j)%4 in 1:3 | chunk 2")
    assert normalise(one(hollow, plain, causal=False)).of == ((0, 0),)


def _repeat(term: Term, chance: random.Random) -> list[Term]:
    return [term] * chance.randint(1, 3)


def _cut_distance(term: Term, chance: random.Random) -> list[Term]:
    low, high = -20 if term.d_from is None else term.d_from, 20 if term.d_to is None else term.d_to
    if low >= high:
        return [term]
    cut = chance.randint(low, high)
    return [replace(term, d_to=cut), replace(term, d_from=chance.randint(low, cut))]


def _cut_residue(term: Term, chance: random.Random) -> list[Term]:
    if term.width == 1:
        every = term.every * 2
        return [replace(term, every=every), replace(term, every=every, offset=term.offset + term.every)]
    return [replace(term, width=1), replace(term, offset=(term.offset + 1) % term.every, width=term.width - 1)]


def _circle(term: Term, chance: random.Random) -> list[Term]:
    if term.every == 1:
        return [replace(term, every=5, width=5, anchor=KEY, offset=chance.randint(0, 4))]
    return [term, replace(term, d_from=(term.d_from or 0) + 1, width=1)]


@given(terms(), terms())
def test_containing_is_sound(outer: Term, inner: Term) -> None:
    if contains(outer, inner):
        rows = range(-12, 40)
        inside, outside = kept_blocks(Layout((inner,)), rows, 40), kept_blocks(Layout((outer,)), rows, 40)
        assert not (inside & ~outside).any()


@given(st.integers(2, 12), st.integers(2, 12), st.data())
def test_containing_residues_is_complete(every: int, other: int, data: st.DataObject) -> None:
    residues = [
        Term(every=e, offset=data.draw(st.integers(0, e - 1)), width=data.draw(st.integers(1, e - 1)))
        for e in (every, other)
    ]
    outer, inner = residues
    truth = all(outer.keeps(0, j) for j in range(every * other) if inner.keeps(0, j))
    assert contains(outer, inner) == truth


def test_thousands_of_rows_and_columns() -> None:
    scattered = [Term(j_from=3 * n, j_to=3 * n + 1) for n in range(4096)]
    scattered += [Term(i_from=2 * n, i_to=2 * n + 1) for n in range(4096)]
    assert len(simplify([*scattered, Term(d_to=4)], causal=True)) == 8193
    joined = [Term(j_from=n, j_to=n + 1) for n in reversed(range(4096))]
    assert simplify(joined, causal=True) == (Term(j_to=4096),)
