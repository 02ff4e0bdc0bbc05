"""How many layers reach: against Boolean matrix products at tokens, and worked-out cases."""

from __future__ import annotations

import random

import numpy as np
import pytest

from patterncc.analysis.geometry.budget import DEFAULT
from patterncc.analysis.geometry.union import union
from patterncc.analysis.proofs.reach import fine, noncausal_layers
from patterncc.analysis.proofs.reach.compose import keeps_blocks
from patterncc.analysis.proofs.reach.noncausal_layers import Reached
from patterncc.analysis.proofs.reach.reach import layers_to_reach
from patterncc.ir.layout import Layout
from tests.analysis.oracle import random_layout
from tests.analysis.proofs.products import check_one, check_terms, unconnected
from tests.witness import kept_tokens


def test_reach_agrees_with_matrix_products():
    seen = {check_one(seed, 0.0) for seed in range(120)}
    assert seen == {(causal, said) for causal in (True, False) for said in ("exact", "fails")}


BLOCKS_LEAVE_OPEN = (89, 469)  # seeds whose windows cut through blocks, and whose strides cross them


@pytest.mark.parametrize("seed", BLOCKS_LEAVE_OPEN)
def test_composing_tokens_decides_what_blocks_leave_open(seed: int, monkeypatch: pytest.MonkeyPatch):
    assert check_one(seed, 0.0, chunks=False) == (True, "exact")
    monkeypatch.setattr(
        "patterncc.analysis.proofs.reach.causal_layers.refined", lambda kept, known, block, budget: known
    )
    assert check_one(seed, 0.0, chunks=False)[1] in ("open", "range")


def test_a_token_more_or_less_in_the_window(monkeypatch: pytest.MonkeyPatch):
    """Strides of 8 blocks of 8 tokens, and a few tokens a layer between them. Without the windows it would show."""

    def steps(window: int) -> tuple[int, Reached]:
        layer = Layout.parse(f"(i-j)%8==0 | window {window},1 tokens")
        brute = unconnected([kept_tokens(layer, 192, causal=True, block=8)] * 16, True)
        least = next(n for n, pair in enumerate(brute, 1) if pair is None)
        return least, layers_to_reach([union([layer])] * 16, True, 8, DEFAULT)

    found = [steps(window) for window in range(6, 10)]
    assert [reached for _, reached in found] == [Reached(least, least) for least, _ in found]
    assert len({least for least, _ in found}) > 2
    monkeypatch.setattr(
        fine, "_keeps_tokens", lambda block, layer, t, u: keeps_blocks(layer.terms, t // block, u // block)
    )
    assert all(reached != Reached(least, least) for least, reached in map(steps, range(6, 10)))


def test_reach_with_random_and_mask_parts():
    for seed in range(1000, 1050):
        check_one(seed, 0.5)


def test_the_check_notices_a_layer_left_out(monkeypatch: pytest.MonkeyPatch):
    """Negative control: what flows through all layers but the last is not what flows through all."""
    right = noncausal_layers._followed
    monkeypatch.setattr(noncausal_layers, "_followed", lambda layers, steps: right(layers[:-1] or layers, steps))
    with pytest.raises(AssertionError):
        for seed in range(120):
            check_one(seed, 0.0)


def test_strides_that_look_ahead_leave_nothing_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(noncausal_layers, "BLOCKS", 3)  # lengths beyond are composed for the theorem's sake only
    found = [check_terms(seed) for seed in range(30)]
    assert {each.at_most is None for each in found} == {True, False}


def test_the_check_notices_lengths_left_out(monkeypatch: pytest.MonkeyPatch):
    """Negative control: composed up to a shorter length than the theorem asks for, unconnected pairs are overlooked."""
    monkeypatch.setattr(noncausal_layers, "BLOCKS", 2)
    monkeypatch.setattr(noncausal_layers, "decides", lambda bound, period, layers, budget: 3)
    with pytest.raises(AssertionError):
        for seed in range(30):
            check_terms(seed)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(10))
def test_strides_that_look_ahead_by_the_thousand(shard: int):
    for seed in range(1000 + shard * 200, 1200 + shard * 200):
        check_terms(seed)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(20))
def test_reach_on_ten_thousand_patterns(shard: int):
    for seed in range(10_000 + shard * 500, 10_500 + shard * 500):
        check_one(seed, 0.3 * (seed % 3 == 0))


def test_no_small_counterexample_is_left_open():
    """Windows and sinks that cut blocks, strides of few blocks; with a random part or a mask now and then."""
    said = set()
    for seed in range(120):
        r = random.Random(seed)
        causal, block, opaque = r.random() < 0.4, r.choice([4, 8, 16]), r.choice([0.0, 0.0, 0.4])
        layers = [
            [random_layout(r, causal, opaque, block) for _ in range(r.randint(1, 2))] for _ in range(r.randint(1, 4))
        ]
        kept = [
            np.logical_or.reduce([kept_tokens(x, 40, causal=causal, block=block) for x in heads]) for heads in layers
        ]
        brute = unconnected(kept, causal)[-1]
        found = layers_to_reach([union(heads) for heads in layers], causal, block, DEFAULT)
        what = (seed, causal, block, [[str(x) for x in heads] for heads in layers], found, brute)
        if brute is not None:
            pair = found.answer.pair
            assert pair is not None and pair <= brute, what
            assert pair == brute or max(pair) >= 40 or not causal, what
            assert found.answer.smallest or (not causal and brute[0] > 0), what
        said.add((causal, brute is None))
    assert len(said) == 4
