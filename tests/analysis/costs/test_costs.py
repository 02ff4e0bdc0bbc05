"""Forecasts against counting: token by token at small lengths, by lowered tables at 8k and 64k, by known facts."""

from __future__ import annotations

import csv
import io
import random
import time
from dataclasses import replace

import numpy as np
import pytest

from patterncc.analysis.costs.balance import balance
from patterncc.analysis.costs.exchange import dense_exchange, exchanged_tokens
from patterncc.analysis.costs.forecast import forecast
from patterncc.analysis.costs.live import held, live_of, live_tokens
from patterncc.analysis.costs.moved import moved
from patterncc.analysis.costs.paged import paged_tokens
from patterncc.analysis.costs.price import price
from patterncc.analysis.costs.schedule import busiest
from patterncc.analysis.costs.weights import Weights, token_pairs, weights
from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.union import union
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.ir.tokens import touched
from patterncc.passes.lower_table import lower_table
from tests.analysis.oracle import classes_of, random_layout
from tests.witness import kept_tokens


def s2(offset: str, *, block: int = 64, layers: int = 1) -> Classes:
    """32 heads, 8 KV heads, local 16, stride 16, offset g or h."""
    heads = [Layout.parse(f"d<16 | j%16=={(h // 4 if offset == 'g' else h) % 16}") for h in range(32)]
    return classes_of([heads] * layers, block=block, causal=True, kv_heads=8)


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


def test_offsets_that_differ_in_a_group_keep_more_alive():
    """The known fact: 7.0 % of a 128k cache with offset g, 25.6 % with offset h, at equal work."""
    g, h = forecast(s2("g"), 131_072).model, forecast(s2("h"), 131_072).model
    assert g["kv_bytes_kept"] / g["kv_bytes_dense"] == pytest.approx(0.070, abs=0.0005)
    assert h["kv_bytes_kept"] / h["kv_bytes_dense"] == pytest.approx(0.256, abs=0.0005)
    assert g["density"] == pytest.approx(h["density"], rel=0.01)
    assert live_tokens(s2("g"), 0, 0, 131_072) == 143 * 64 and live_tokens(s2("h"), 0, 0, 131_072) == 524 * 64


def test_bytes_and_sums():
    model = forecast(s2("g", layers=3), 4096, dtype="fp32")
    one = forecast(s2("g"), 4096, dtype="bf16")
    assert model.layers[0]["layers"] == [0, 1, 2] and len(model.layers) == 1
    assert model.layers[0]["kv_bytes_dense"] == 4096 * 8 * 2 * 64 * 4
    assert model.model["kv_bytes_dense"] == 3 * 2 * one.model["kv_bytes_dense"]
    assert model.model["density"] == pytest.approx(one.model["density"])
    assert one.model["density"] == pytest.approx(1 / one.model["speedup"])
    assert set(one.model) <= set(one.layers[0])
    assert sum(entry["kv_bytes_kept"] for entry in one.layers[0]["kv_heads"]) == one.model["kv_bytes_kept"]


def test_values_of_another_width():
    """A token's K and V, and each product along its own width."""
    alike = s2("g")
    wide = replace(alike, v_head_dim=3 * alike.head_dim)
    assert wide.head_dim == alike.head_dim == alike.v_head_dim == 64
    for known, of_wide in zip(forecast(alike, 4096).model.items(), forecast(wide, 4096).model.items(), strict=True):
        (key, number), times = known, 1
        if key.startswith(("kv_bytes", "exchange_bytes")) or key == "flops_forward":
            times = 2  # 64 + 192 numbers for 64 + 64
        elif key == "flops_backward":
            times = 1.8  # 3 products along 64, 2 along 192, for 5 along 64
        assert of_wide == (key, pytest.approx(times * number)), key
    assert price(wide, 4096).kv_bytes == forecast(wide, 4096).model["kv_bytes_kept"]


def test_dense_is_dense():
    dense = classes_of([[Layout.parse("all")] * 2], block=16, causal=True, kv_heads=1)
    model = forecast(dense, 1000).model
    assert model["density"] == model["speedup"] == 1
    assert model["kv_bytes_kept"] == model["kv_bytes_peak"] == model["kv_bytes_read"] == model["kv_bytes_dense"]
    assert model["exchange_bytes"] == model["exchange_bytes_dense"]
    assert model["imbalance"] == 1


def test_nothing_kept_has_figures_too():
    nothing = classes_of([[Layout()]], block=16, causal=True, kv_heads=1)
    model = forecast(nothing, 100).model
    assert (model["density"], model["speedup"], model["kv_bytes_kept"], model["imbalance"]) == (0, None, 0, 1)


@pytest.mark.parametrize("length", [1_000_000, 10_000_000])
def test_long_forecasts_do_not_take_longer(length: int):
    classes = s2("h", layers=4)
    start = time.process_time()
    model = forecast(classes, length).model
    assert time.process_time() - start < 5, "milliseconds are the aim; a busy machine is allowed for"
    assert model["density"] == pytest.approx(1 / 16, rel=0.05)
    assert model["kv_live_forever"] == pytest.approx(1 / 4, rel=0.001)


def test_a_forecast_needs_a_token():
    with pytest.raises(ValueError, match="at least one token"):
        forecast(s2("g"), 0)


def test_csv_has_a_line_a_layer_class_and_the_model():
    lines = list(csv.DictReader(io.StringIO(forecast(s2("g"), 4096).to_csv())))
    assert [line["layers"] for line in lines] == ["0", "model"]
    assert float(lines[0]["density"]) == forecast(s2("g"), 4096).model["density"]


def test_balance():
    heads = [Layout.parse("all")] + [Layout.parse("d<1")] * 3
    classes = classes_of([heads], block=64, causal=True, kv_heads=4)
    verdict = balance(classes, limit=2.0, length=6400)[0]
    whole, one = 6400 * 6401 // 2, 100 * 64 * 65 // 2
    assert verdict.value == pytest.approx(whole / ((whole + 3 * one) / 4), abs=1e-6)
    assert verdict.holds is False and verdict.heads == (0,)
    assert balance(classes, limit=4.0, length=6400)[0].holds is True


def test_heaviest_first_is_even():
    falling = Weights(np.arange(1, 101), np.arange(1, 101))
    assert busiest([falling] * 4, 100, 8) < 1.02
    assert busiest([Weights(np.array([1]), np.array([10]))], 1, 4) == 4
