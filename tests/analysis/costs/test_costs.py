"""Forecasts against counting: token by token at small lengths, by lowered tables at 8k and 64k, by known facts."""

from __future__ import annotations

import random

import numpy as np
import pytest

from patterncc.analysis.costs.exchange import dense_exchange, exchanged_tokens
from patterncc.analysis.costs.forecast import forecast
from patterncc.analysis.costs.live import held, live_of, live_tokens
from patterncc.analysis.costs.moved import moved
from patterncc.analysis.costs.paged import paged_tokens
from patterncc.analysis.costs.weights import token_pairs, weights
from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.union import union
from patterncc.ir.layout import Layout
from patterncc.ir.tokens import touched
from patterncc.passes.lower_table import lower_table
from tests.analysis.oracle import classes_of, random_layout
from tests.witness import kept_tokens


def test_weights_and_token_pairs_equal_counting():
    extended = 0
    for seed in range(250):
        r = random.Random(seed)
        causal, block = r.random() < 0.7, r.choice([1, 2, 3, 4])
        layout = random_layout(r, causal, 0.3 * (seed % 3 == 0), block)
        length = r.randint(1, block * r.choice([3, 20, 80]))
        rows = -(-length // block)
        found = weights(layout, causal, block, rows)
        extended += found.period > 0
        kept = kept_tokens(layout, rows * block, causal=causal, block=block)
        tokens = kept.reshape(rows, block, -1).sum((1, 2))
        blocks = kept.reshape(rows, block, rows, block).any((1, 3)).sum(1)
        what = (seed, causal, block, str(layout), length)
        assert found.total(rows) == (blocks.sum(), tokens.sum()), what
        assert found.row(k := r.randrange(rows)) == (blocks[k], tokens[k]), what
        assert token_pairs(layout, causal, block, length) == kept[:length, :length].sum(), what
    assert extended > 30, "the theorem was used"


def test_live_keys_equal_counting():
    periodic = 0
    for seed in range(150):
        r = random.Random(seed)
        block = r.choice([1, 2, 3, 4])
        layouts = [random_layout(r, True, 0.0, block) for _ in range(r.randint(1, 3))]
        rows = 20
        kept = np.logical_or.reduce([kept_tokens(x, block * 50, causal=True, block=block) for x in layouts])
        brute = [0] + [int(kept[n - 1 :, :n].any(0).sum()) for n in range(1, rows * block)]
        classes = classes_of([layouts], block=block, causal=True, kv_heads=1)
        what = (seed, block, [str(x) for x in layouts])
        live = live_of(layouts, block, rows)
        periodic += live.period > 0
        for n in {0, 1, 2, *(r.randrange(rows * block) for _ in range(5))}:
            assert live_tokens(classes, 0, 0, n) == brute[n], (n, *what)
            assert live.peak(n) == max(brute[: n + 1]), (n, *what)
            for page in (size for size in (1, 2, 3, 4) if block % size == 0):
                read = kept[max(n - 1, 0) :, :n].any(0)
                pages = {int(u) // page for u in np.flatnonzero(read)}
                assert live.tokens(n, page) == len(pages) * page, (n, page, *what)
    assert periodic > 20


def test_a_window_that_begins_within_a_page_holds_one_more():
    """1,000 tokens lie in 63 pages of 16, or in 64, as the two ends of the window fall."""
    classes = classes_of([[Layout.parse("window 1000,1 tokens")]], block=64, causal=True, kv_heads=1)
    for length in (1000, 1024, 5000, 5003, 100_001):
        newest = length - 1
        pages = newest // 16 - max(newest - 999, 0) // 16 + 1
        assert paged_tokens(classes, 0, length) == 16 * pages, length


def test_what_is_counted_once_for_all_offsets_equals_counting():
    """Heads that come from others by a move: weights and live keys as if each were counted for itself."""
    used = 0
    for seed in range(200):
        r = random.Random(seed)
        block, every = r.choice([1, 2, 3]), r.choice([3, 5, 8, 13])
        near = r.choice(["", "d<2 | ", "2<=d<5 | ", "d<6 & (i-j)%2==0 | "])
        window = f" | window {r.randint(1, 4 * block)},1 tokens" if r.random() < 0.5 else ""
        width = r.choice([1, 1, 2])
        spots = sorted(r.sample(range(1, every - width + 1), 2)) if every - width > 1 else [every - width] * 2
        layouts = tuple(Layout.parse(f"{near}j%{every} in {o}:{o + width}{window}") for o in spots)
        found = moved(layouts, block)
        assert found is not None and found.by == spots[0]
        rows = r.randint(1, 90)
        length = rows * block - r.randrange(block)
        what = (seed, block, [str(x) for x in layouts], length)
        kept = [kept_tokens(x, rows * block, causal=True, block=block) for x in layouts]
        for layout, one in zip(layouts, kept, strict=True):
            assert weights(layout, True, block, rows).total(rows)[1] == one.sum(), what
            assert token_pairs(layout, True, block, length) == one[:length, :length].sum(), what
        both = held(layouts, block, length)
        live = live_of(layouts, block, length // block + 1)
        assert (both.tokens, both.peak) == (live.tokens(length), live.peak(length)), what
        assert both.forever == live.forever(-(-length // block)), what
        used += rows > found.by + 2 * found.reach + 4
    assert used > 100
    for text in (
        "d<2 | j%8==0",
        "j%8==3 | sink 2 tokens",
        "4<=d & j%8==3",
        "j<1 | j%8==3",
        "4<=d | j%8==3",
        "j%8 in 7:9",
    ):
        assert moved((Layout.parse(text),), 4) is None, text


def test_the_largest_length_costs_no_more_than_the_period():
    """2^31 - 1 tokens end within a block of 2^27; counted by a formula, since looking at the row's columns took half a
    minute."""
    block, length = 16, 2**31 - 1
    rows, rest = divmod(length, block)
    m = rows // 4
    columns = 2 * m * (m - 1) + 3 * m + 3 * m + 2  # the sum of ceil(i / 4): of 4 m rows, and of three more
    assert rows == 4 * m + 3
    whole = columns * block**2 + rows * block * (block + 1) // 2
    part = -(-rows // 4) * block * rest + rest * (rest + 1) // 2
    assert token_pairs(Layout.parse("d<1 | j%4==0"), True, block, length) == whole + part


def test_a_random_part_keeps_every_key_alive():
    classes = classes_of([[Layout.parse("d<2 | random 1 seed 3")]], block=16, causal=True, kv_heads=1)
    assert live_tokens(classes, 0, 0, 1000) == 1000


def test_exchange_equals_counting():
    stood_for = 0
    for seed in range(300):
        r = random.Random(seed)
        causal, block, devices = r.random() < 0.5, r.choice([1, 2, 3]), r.randint(1, 5)
        rows = r.randint(1, r.choice([9, 50, 180]))
        layouts = tuple(random_layout(r, causal, 0.1, block) for _ in range(r.randint(1, 3)))
        length = block * rows - r.randrange(block)
        kept = np.logical_or.reduce([kept_tokens(x, length, causal=causal, block=block) for x in layouts])
        share = -(-rows // devices) * block
        brute = dense = 0
        for first in range(0, length, share):
            needed = kept[first : first + share].any(0)
            needed[first : first + share] = False
            blocks = np.unique(np.flatnonzero(needed) // block)
            brute += sum(min(block, length - int(j) * block) for j in blocks)
            dense += first if causal else length - len(kept[first : first + share])
        what = (seed, causal, block, length, devices, [str(x) for x in layouts])
        assert exchanged_tokens(layouts, block, length, devices, causal) == brute, what
        assert dense_exchange(block, length, devices, causal) == dense, what
        periodic = not any(x.random or x.mask for x in layouts)
        bound, period = extent(union(touched(x, causal=causal, block=block) for x in layouts))
        stood_for += periodic and devices > 1 and share // block - 2 * bound - 1 > 2 * period
    assert stood_for > 30, "columns stood for others"


def test_what_the_last_token_reads_equals_counting():
    for seed in range(200):
        r = random.Random(seed)
        causal, block = r.random() < 0.5, r.choice([1, 2, 3])
        layouts = [random_layout(r, causal, 0.2, block) for _ in range(r.randint(1, 3))]
        length = r.randint(1, block * r.choice([9, 50, 180]))
        kept = np.logical_or.reduce([kept_tokens(x, length, causal=causal, block=block) for x in layouts])
        classes = classes_of([layouts], block=block, causal=causal, kv_heads=1)
        read = forecast(classes, length).model["kv_bytes_read"]
        what = (seed, causal, block, length, [str(x) for x in layouts])
        assert read == kept[-1].sum() * 2 * 64 * 2, what


@pytest.mark.parametrize("length", [8192, 65536])
@pytest.mark.parametrize(
    "text", ["d<16 | j%16==3", "d<8 | window 700,1 tokens | sink 70 tokens", "all", "(i-j)%12 in 0:5"]
)
def test_a_forecast_equals_the_counted_table(text: str, length: int):
    layout = Layout.parse(text)
    classes = classes_of([[layout]], block=64, causal=True, kv_heads=1)
    entry = forecast(classes, length).layers[0]
    table = lower_table(layout, causal=True, block=64, rows=length // 64, columns=length // 64)
    assert entry["blocks"] == len(table.columns)
    assert entry["table_bytes"] == 4 * (len(table.columns) + length // 64 + 1)
    if not (layout.window or layout.sink):
        diagonal = sum(term.keeps(0, 0) or term.keeps(3, 3) for term in layout.terms) > 0
        pairs = len(table.columns) * 64 * 64 - (length // 64 * (64 * 63 // 2) if diagonal else 0)
        assert entry["token_pairs"] == pairs
        assert entry["density"] == pytest.approx(pairs / (length * (length + 1) / 2))
        assert entry["flops_forward"] == 4 * 64 * pairs and entry["flops_backward"] == 10 * 64 * pairs
