"""Tables against the definition at tokens, for every length; what makes it fast and exact."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patterncc.ir.layout import Layout
from patterncc.ir.table import Table
from patterncc.passes import lower_table as table_module
from patterncc.passes.lower_table import lower_table
from tests.strategies import layouts
from tests.witness import kept_tokens, table_lists

BLOCK = 3


def square(layout: Layout, length: int, causal: bool, block: int = BLOCK) -> Table:
    blocks = -(-length // block)
    return lower_table(layout, causal=causal, block=block, rows=blocks, columns=blocks)


@given(layouts(), st.integers(0, 40), st.booleans())
@example(Layout(window=(4, 1)), 7, True)
@example(Layout(window=(2, 9), sink=4), 25, False)
def test_any_token_pair(layout: Layout, length: int, causal: bool) -> None:
    expected = table_lists(kept_tokens(layout, length, causal=causal, block=BLOCK), BLOCK)
    assert square(layout, length, causal).tolist() == expected


@given(
    layouts(),
    st.lists(st.tuples(st.integers(-12, 12), st.integers(1, 9)), max_size=2),
    st.integers(1, 40),
    st.booleans(),
)
@example(Layout(), [(5, 9)], 10, True)  # the band reaches the last row's third token only
@example(Layout(), [(2, 3), (-3, 2)], 7, False)
def test_bands_in_a_last_block_that_is_not_whole(
    layout: Layout, bands: list[tuple[int, int]], length: int, causal: bool
) -> None:
    spans = tuple((low, low + size) for low, size in bands if low >= 0 or not causal)
    layout = dataclasses.replace(layout, bands=spans)
    expected = table_lists(kept_tokens(layout, length, causal=causal, block=BLOCK), BLOCK)
    blocks = -(-length // BLOCK)
    sizes = {"causal": causal, "block": BLOCK, "rows": blocks, "columns": blocks}
    assert lower_table(layout, **sizes, tokens=length).tolist() == expected


def test_a_whole_row_lists_more_than_its_first_tokens_keep() -> None:
    """The control: without the length, the last row is that of a whole block."""
    sizes = {"causal": True, "block": BLOCK, "rows": 3, "columns": 3}
    band = Layout(bands=((5, 9),))
    assert lower_table(band, **sizes).tolist() == [[], [0], [0, 1]]
    assert lower_table(band, **sizes, tokens=7).tolist() == [[], [0], [0]]


@given(layouts(closed=True), st.integers(0, 40), st.booleans())
@example(Layout.parse("j<4 | 2<=d & (i-j)%3==1"), 40, True)
def test_closed_layouts_at_every_length(layout: Layout, length: int, causal: bool) -> None:
    expected = table_lists(kept_tokens(layout, length, causal=causal, block=BLOCK), BLOCK)
    assert square(layout, length, causal).tolist() == expected


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 5, 16]), st.booleans())
def test_windows_of_tokens(before: int, after: int, block: int, causal: bool) -> None:
    layout = Layout(window=(before, after))
    for length in (1, block, 2 * block + 1, 61):
        expected = table_lists(kept_tokens(layout, length, causal=causal, block=block), block)
        assert square(layout, length, causal, block).tolist() == expected


@given(layouts(), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_rows_and_columns_may_differ(layout: Layout, rows: int, columns: int, causal: bool) -> None:
    whole = lower_table(layout, causal=causal, block=BLOCK, rows=9, columns=9).tolist()
    sizes = {"causal": causal, "block": BLOCK, "rows": rows, "columns": columns}
    expected = [[j for j in row if j < columns] for row in whole[:rows]]
    assert lower_table(layout, **sizes).tolist() == expected


@given(layouts(), st.booleans(), st.sampled_from([1, 7, 64]))
def test_chunks_change_nothing(layout: Layout, causal: bool, size: int) -> None:
    whole = square(layout, 36, causal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_module, "CELLS", size)
        patch.setattr("patterncc.ir.runs.CHUNK", size)
        assert square(layout, 36, causal) == whole


@given(layouts(), st.data())
def test_one_wrong_entry_is_noticed(layout: Layout, data: st.DataObject) -> None:
    expected = table_lists(kept_tokens(layout, 30, causal=True, block=BLOCK), BLOCK)
    rows = [list(row) for row in expected]
    at = data.draw(st.integers(0, len(rows) - 1))
    rows[at] = sorted(set(rows[at]) ^ {data.draw(st.integers(0, 9))})
    assert square(layout, 30, True) != Table.of(rows)


@pytest.mark.parametrize("text", ["d<2 | j%5==3", "j%5==3 & 2<=d<6 | (i-j)%4==1", "d<2 | j%5==3 | 4<=i<5"])
def test_one_wrong_offset_is_noticed(text: str) -> None:
    layout = Layout.parse(text)
    for n, term in enumerate(layout.terms):
        if term.every > 1:
            wrong = dataclasses.replace(term, offset=(term.offset + 1) % term.every)
            moved = dataclasses.replace(layout, terms=(*layout.terms[:n], wrong, *layout.terms[n + 1 :]))
            assert square(moved, 45, True) != square(layout, 45, True)


def test_entries_are_as_many_as_arithmetic_says() -> None:
    """32k tokens, block 64, local 16, stride 16: what a first prototype counted."""
    layout = Layout.parse("d<16 | j%16==0")
    table = square(layout, 32768, True, block=64)
    assert table.entries == sum(min(i + 1, 16) + (max(i - 15, 0) + 15) // 16 for i in range(512))
    assert table.pointers.dtype == np.int64
    assert table.columns.dtype == np.int32
