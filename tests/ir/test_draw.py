"""The rule of drawing is stated three times over; they agree, and it draws fairly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from patterncc import reference
from patterncc.ir.bitmap import draw_rows
from patterncc.ir.draw import draw
from patterncc.ir.layout import Random
from tests.witness import drawn

seeds = st.integers(0, 2**31 - 1)


@given(st.lists(st.integers(-3, 300) | st.integers(0, 2**27), min_size=1), st.integers(1, 256), seeds)
def test_all_statements_agree(rows: list[int], blocks: int, seed: int) -> None:
    at_once = draw_rows(Random(blocks, seed), np.array(rows))
    for row, columns in zip(rows, at_once.tolist(), strict=True):
        one_by_one = draw(row, blocks, seed)
        assert sorted(column for column in columns if column >= 0) == list(one_by_one)
        assert set(one_by_one) == drawn(row, blocks, seed) == reference.drawn(seed, row, blocks)
        assert len(one_by_one) == max(0, min(row + 1, blocks))
        assert all(0 <= column <= row for column in one_by_one)


def test_every_column_is_drawn_about_as_often() -> None:
    """8 of 64 columns in each of 4000 rows of the same length: 500 times each, give or take 5 standard deviations."""
    counts = np.zeros(64)
    for seed in range(4000):
        counts[list(draw(63, 8, seed))] += 1
    assert abs(counts - 500).max() < 5 * (500 * 7 / 8) ** 0.5


def test_seeds_and_rows_draw_apart() -> None:
    draws = {draw(1000, 4, seed) for seed in range(200)} | {draw(row, 4, 0) for row in range(1001, 1200)}
    assert len(draws) == 399
