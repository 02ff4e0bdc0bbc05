"""The closed form says exactly what the terms say, and says it wherever it can."""

from __future__ import annotations

from dataclasses import replace
from math import lcm

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterncc.ir.check import check
from patterncc.ir.closed import MOST_RESIDUES, Band, ClosedForm
from patterncc.ir.layout import KEY, QUERY, Layout, Term
from patterncc.passes.closed_form import closed_form
from tests.strategies import layouts
from tests.witness import kept_blocks

ROWS, COLUMNS = range(-5, 30), 30


def whole(form: ClosedForm) -> np.ndarray:
    return np.array([[form.keeps(i, j) for j in range(COLUMNS)] for i in ROWS])


@given(layouts(), st.booleans())
def test_same_blocks(layout: Layout, causal: bool) -> None:
    form = closed_form(layout, causal)
    if form is None:
        return
    check(form, after="closed_form")
    i, j = np.meshgrid(ROWS, np.arange(COLUMNS), indexing="ij")
    looked_at = (j <= i) if causal else np.ones_like(i, dtype=bool)
    np.testing.assert_array_equal(whole(form) & looked_at, kept_blocks(layout, ROWS, COLUMNS) & looked_at)
    assert ClosedForm.parse(str(form)) == form


@given(layouts(closed=True), st.booleans(), st.sampled_from([KEY, QUERY]))
def test_one_anchor_is_closed_unless_residues_are_many(layout: Layout, causal: bool, anchor: str) -> None:
    terms = tuple(replace(term, anchor=anchor) for term in layout.terms)
    form = closed_form(Layout(terms), causal)
    if form is None:
        wheels = [term for term in terms if term.every > 1]
        turn = range(lcm(*(term.every for term in wheels)))
        kept = {x for x in turn for term in wheels if (x - term.offset) % term.every < term.width}
        assert len(kept) > MOST_RESIDUES
    elif causal:
        assert all(band.d_from is not None and band.d_from >= 0 for band in form.bands)


@given(layouts(closed=True), st.integers(0, 3), st.booleans())
def test_one_wrong_offset_is_noticed(layout: Layout, n: int, causal: bool) -> None:
    form = closed_form(layout, causal)
    band = form.bands[n] if form and n < len(form.bands) else Band(None, None)
    turned = tuple(sorted((residue + 1) % band.every for residue in band.residues))
    if form is None or turned == band.residues or band.anchor == QUERY:
        return
    wrong = replace(form, bands=(*form.bands[:n], replace(band, residues=turned), *form.bands[n + 1 :]))
    distance = band.d_from if band.d_from is not None else (band.d_to or 0) - 1
    columns = range(form.sink, form.sink + band.every)
    assert any(wrong.keeps(j + distance, j) != form.keeps(j + distance, j) for j in columns)


@pytest.mark.parametrize(
    "text",
    [
        "3<=i<4",
        "3<=j<4",
        "j<4 & d<2",
        "random 2 seed 0",
        "mask 1x1 80",
        "j%3==0 | (i-j)%4==1",
        f"j%{2 * MOST_RESIDUES} in 0:{MOST_RESIDUES + 1}",
        "j%10007==0 | j%9973==1",
    ],
)
def test_what_arithmetic_cannot_say(text: str) -> None:
    assert closed_form(Layout.parse(text), causal=True) is None


def test_everything_swallows_the_other_anchor() -> None:
    assert closed_form(Layout.parse("all | (i-j)%4==1 | j%3==0"), causal=True) == ClosedForm(0, (Band(0, None),))
    halves = Layout.parse("j%2==0 | j%2==1 | (i-j)%4==1")
    assert closed_form(halves, causal=False) == ClosedForm(0, (Band(None, None),))


def test_large_numbers_cost_nothing() -> None:
    form = closed_form(Layout((Term(every=2**27, offset=2**27 - 1), Term(d_to=2**27))), causal=True)
    assert form == ClosedForm(0, (Band(0, 2**27), Band(2**27, None, 2**27, (2**27 - 1,))))
    assert closed_form(Layout(tuple(Term(every=p) for p in range(2**20, 2**20 + 256))), causal=True) is None
