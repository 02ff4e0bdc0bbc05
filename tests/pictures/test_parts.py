"""Which part keeps a block, how much is kept and held: against the definition at tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from patterncc.ir.layout import Layout, Term
from patterncc.pictures.parts import density, parts_of, row_parts
from patterncc.pictures.text import grid, legend, telling_rows
from patterncc.pictures.view import live_tokens, row_weights
from tests.strategies import banded, layouts
from tests.witness import kept_tokens, table_lists

BLOCK = 3


@given(layouts(), st.integers(1, 9), st.booleans())
@example(Layout(window=(4, 1)), 3, True)
@example(Layout(window=(2, 9), sink=4), 6, False)
def test_drawn_blocks_are_the_kept_blocks(layout: Layout, rows: int, causal: bool) -> None:
    tokens = kept_tokens(layout, rows * BLOCK, causal=causal, block=BLOCK)
    found = [row_parts(layout, i, rows, causal=causal, block=BLOCK) for i in range(rows)]
    expected = table_lists(tokens, BLOCK)
    assert [[j for j, number in enumerate(numbers) if number] for numbers in found] == expected
    assert row_weights(layout, rows, causal=causal, block=BLOCK) == [len(columns) for columns in expected]


@given(layouts(), st.integers(1, 9), st.booleans())
def test_the_first_part_is_the_reason(layout: Layout, rows: int, causal: bool) -> None:
    """Each part alone, by the witness: the number is that of the first one that keeps any token pair."""
    alone = [Layout((term,)) for term in layout.terms]
    alone += [Layout(chunk=layout.chunk)] if layout.chunk else []
    alone += [Layout(random=layout.random)] if layout.random else []
    alone += [Layout(mask=layout.mask)] if layout.mask else []
    whole = len(alone)
    alone += [Layout(window=layout.window)] if layout.window else []
    alone += [Layout(bands=(band,)) for band in layout.bands]
    alone += [Layout(sink=layout.sink)] if layout.sink else []
    assert [part.whole for part in parts_of(layout)] == [k < whole for k in range(len(alone))]
    kept = [table_lists(kept_tokens(one, rows * BLOCK, causal=causal, block=BLOCK), BLOCK) for one in alone]
    for i in range(rows):
        for j, number in enumerate(row_parts(layout, i, rows, causal=causal, block=BLOCK)):
            assert number == next((k for k, lists in enumerate(kept, start=1) if j in lists[i]), 0)


@given(banded(), st.integers(1, 12))
def test_bands_of_distances_are_drawn_and_counted(layout: Layout, rows: int) -> None:
    tokens = kept_tokens(layout, rows * BLOCK, causal=True, block=BLOCK)
    found = [row_parts(layout, i, rows, causal=True, block=BLOCK) for i in range(rows)]
    assert [[j for j, number in enumerate(numbers) if number] for numbers in found] == table_lists(tokens, BLOCK)
    pairs = np.tril(np.ones_like(tokens)).sum()
    assert density(layout, rows, causal=True, block=BLOCK) == tokens.sum() / pairs


@given(layouts(), st.integers(1, 9), st.booleans())
def test_density_is_counted(layout: Layout, rows: int, causal: bool) -> None:
    tokens = kept_tokens(layout, rows * BLOCK, causal=causal, block=BLOCK)
    pairs = np.tril(np.ones_like(tokens)).sum() if causal else tokens.size
    assert density(layout, rows, causal=causal, block=BLOCK) == tokens.sum() / pairs


@settings(max_examples=40)
@given(st.lists(layouts(), min_size=1, max_size=3), st.integers(1, 8))
def test_live_keys_are_those_that_a_later_row_may_attend(group: list[Layout], rows: int) -> None:
    """Without random parts, whose columns are held for good because some later row may always draw them."""
    group = [replace(layout, random=None) for layout in group]
    length = (rows + 50) * BLOCK  # past every bound and period of the strategy
    assert all(small(term) for layout in group for term in layout.terms)
    tokens = np.any([kept_tokens(layout, length, causal=True, block=BLOCK) for layout in group], axis=0)
    ends = [(i + 1) * BLOCK for i in range(rows)]
    assert live_tokens(group, rows, BLOCK) == [int(tokens[end - 1 :, :end].any(axis=0).sum()) for end in ends]


def small(term: Term) -> bool:
    bounds = (term.d_from, term.d_to, term.j_from, term.j_to, term.i_from, term.i_to)
    return max(abs(bound or 0) for bound in bounds) + term.every < 50


def test_the_lead_figures_of_the_cache() -> None:
    """131072 tokens, local 16, stride 16: 143 of 2048 blocks are held, 524 where four heads differ in their offset."""
    same = [Layout.parse("d<16 | j%16==3")]
    apart = [Layout.parse(f"d<16 | j%16=={offset}") for offset in range(4)]
    assert live_tokens(same, 2048, 1)[-1] == 143
    assert live_tokens(apart, 2048, 1)[-1] == 524


def test_a_drawing() -> None:
    layout = Layout.parse("d<2 | j%4==1 | window 100,1 tokens | sink 4 tokens | 5<=i<6")
    assert grid(layout, causal=True, block=64, rows=7) == [
        "#",
        "# #",
        "+ # #",
        "+ | # #",
        "+ | + # #",
        "= | = = # #",
        "+ | . . + # #",
    ]
    assert legend([layout]) == ["# local", "| stride", "= globals", "+ kept in part", ". not kept"]


def test_both_sides_are_drawn_where_heads_look_ahead() -> None:
    lines = grid(Layout.parse("-1<=d<2"), causal=False, block=64, rows=3)
    assert lines == ["# # .", "# # #", ". # #"]


def test_rows_that_tell() -> None:
    assert telling_rows([Layout.parse("d<2")], 64) == 16
    assert telling_rows([Layout.parse("window 1024,1 tokens")], 64) == 48
    assert telling_rows([Layout.parse("d<100000")], 64) == 96
