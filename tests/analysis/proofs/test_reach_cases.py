"""How many layers reach: worked-out cases, and what verdicts say of them."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from patterncc.analysis.explain.explain import explain
from patterncc.analysis.explain.report import Report, junit, markdown
from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import DEFAULT
from patterncc.analysis.geometry.union import union
from patterncc.analysis.proofs.reach.noncausal_layers import Reached
from patterncc.analysis.proofs.reach.reach import layers_to_reach, reach
from patterncc.analysis.proofs.reach.sources import sources
from patterncc.ir.layout import Layout
from tests.analysis.oracle import classes_of, random_layout
from tests.witness import kept_tokens


@pytest.mark.parametrize(
    ("layers", "causal", "steps", "pair"),
    [
        (["window 4096,1 tokens"] * 32, True, None, (32 * 4095 + 1, 0)),
        (["d<64 | window 4096,1 tokens | sink 4 tokens"] * 2, True, None, (2 * 4095 + 5, 4)),
        (["d<16 | window 1024,1 tokens"] * 5 + ["all"], True, 6, None),
        (["d<2 | window 128,1 tokens", "all"] * 3, True, 2, None),
        (["d<16 | j%16==3"] * 2, True, 2, None),  # over the window to a column that all keep, then from there
        (["d<8 | j%16==3"] * 4, True, 4, None),  # 7 blocks a layer, 15 to go
        (["d<8 | j%16==3"] * 3, True, None, (26 * 64, 4 * 64)),
        (["window 1000,1 tokens | (i-j)%16==0"] * 2, True, 2, None),
        (["-3<=d<4 | i<1 | j<1"] * 12, False, 2, None),
        (["i<1 | d<1", "j<1"], False, 2, None),
        (["j<1", "i<1 | d<1"], False, None, (128, 64)),  # in the wrong order
        (["window 128,128 tokens"] * 12, False, None, (0, 12 * 127 + 1)),
        (["window 128,128 tokens | -1<=d<2 | sink 200 tokens"] * 3, False, None, (0, 199 + 2 * 127 + 1)),
        (["1<=d<3"] * 4, False, None, (0, 1)),
        (["-7<=d<8 | j%16==3"] * 4, False, 4, None),  # of 19 blocks, the last to block 3 in three steps
        (["-3<=d<4 | (i-j)%8==0"] * 4, False, 3, None),  # of 8 blocks, the last to the first
        (["d<0 | 1<=d | window 50,1 tokens"], False, None, (0, 1)),  # composing blocks left it open
        (["d<0 | 1<=d | window 50,1 tokens"] * 2, False, None, (0, 1)),  # of two tokens, nothing lies between
        (["j%97==3 | window 5,1 tokens", "j%89==5 | window 3,1 tokens", "(i-j)%101==7"], True, None, (7, 0)),
        (["all"], True, 1, None),
        (["nothing"], True, None, (1, 0)),
    ],
)
def test_known_cases(layers: list[str], causal: bool, steps: int | None, pair: tuple[int, int] | None):
    found = layers_to_reach([union([Layout.parse(text)]) for text in layers], causal, 64, DEFAULT)
    assert found.at_most == steps
    if steps is not None:
        assert found.at_least == steps
    else:
        assert found.answer.pair == pair and found.answer.smallest


def test_stride_16_and_a_window_of_8_blocks():
    """Sixteen heads, one residue each, cover in one layer; one head per layer never joins what its stride skips."""
    every = [Layout.parse(f"d<8 | j%16=={o}") for o in range(16)]
    assert layers_to_reach([union(every)], True, 64, DEFAULT) == Reached(1, 1)
    one = layers_to_reach([union(every[1:2])] * 2, True, 64, DEFAULT)
    assert one.answer.pair is not None
    t, u = one.answer.pair
    assert (t // 64 - u // 64) >= 15, "two windows of 8 blocks reach 14 blocks back"


@pytest.mark.parametrize(
    ("texts", "causal", "found"),
    [
        (["d<2"], True, Reached(4097, None, Answer((4097 * 64, 0)))),
        (["d<16 | j<1"], True, Reached(4097, None, Answer(((4096 * 15 + 2) * 64, 64)))),
        (["d<2"] * 40 + ["all"], True, Reached(41, 41)),
        (["-1<=d<2"], False, Reached(4097, None, Answer((0, 4097 * 64)))),
        (["-1<=d<2 | j<1"], False, Reached(4097, None, Answer((0, 4097 * 64)))),
        (["-1<=d<2 | (i-j)%16==0"], False, Reached(15, 15)),  # of 16 blocks, the last to the first
        (["d<1"] * 99 + ["d<1 | i<1", "d<1 | j<1"], False, Reached(101, 101)),
        (["d<16 | j%16==3 & d<64"], True, Reached(1025, None, Answer(settled=255))),  # too much to compose
    ],
)
def test_thousands_of_layers(texts: list[str], causal: bool, found: Reached):
    layers = [union([Layout.parse(text)]) for text in texts]
    assert layers_to_reach([layers[n % len(layers)] for n in range(4096)], causal, 64, DEFAULT) == found


@pytest.mark.parametrize("causal", [True, False])
def test_layers_that_cover_in_turn_are_enough(causal: bool):
    """Thirty-two arcs of a stride of 1024, an arc a layer, and a window: all layers are needed, and they suffice. What
    composing them would take is beyond any budget."""
    ahead = "" if causal else "-31<=d<1 | "
    heads = [[Layout.parse(f"{ahead}d<32 | j%1024=={32 * layer + h}") for h in range(32)] for layer in range(32)]
    classes = classes_of(heads, block=64, causal=causal, kv_heads=8)
    start = time.process_time()
    verdict = reach(classes, DEFAULT)[0]
    assert time.process_time() - start < 6, "a quarter of a second is what it takes; a busy machine is allowed for"
    assert verdict.holds is True and (verdict.value == 32 or not causal)
    few = reach(classes_of([x[:1] for x in heads[:3]], block=64, causal=causal, kv_heads=1), DEFAULT)[0]
    assert few.holds is not True


def test_a_query_token_is_followed_back_by_ranges():
    """Against Boolean matrix products, with residues of columns and of distances, bounds, random parts and masks."""
    for seed in range(150):
        r = random.Random(seed)
        block = r.choice([1, 2, 3])
        layers = [[random_layout(r, True, 0.3, block) for _ in range(r.randint(1, 2))] for _ in range(r.randint(1, 3))]
        tokens = r.randint(1, 30 * block)
        connected = np.eye(tokens, dtype=bool)
        for heads in layers:
            step = np.logical_or.reduce([kept_tokens(x, tokens, causal=True, block=block) for x in heads])
            connected |= (step.astype(np.float32) @ connected.astype(np.float32)) > 0
        t = r.randrange(tokens)
        found = sources([union(heads) for heads in layers], t, block)
        assert (found == connected[t, : t + 1]).all(), (seed, block, [[str(x) for x in heads] for heads in layers], t)


def test_a_counterexample_far_out_is_found_where_nothing_small_is():
    """Coprime strides of hundreds of blocks: too much to compose. Windows of 40 blocks hide it at first."""
    layers = [Layout.parse(f"j%{every}==3 | window 640,1 tokens") for every in (611, 613, 617)]
    found = layers_to_reach([union([x]) for x in layers], True, 16, DEFAULT)
    assert found.answer.pair is not None and found.at_least == 4
    t, u = found.answer.pair
    connected = np.zeros(t + 1, bool)
    connected[t] = True
    for layer in reversed(layers):  # by the definition, a query token at a time
        for token in np.flatnonzero(connected):
            keys = np.arange(token + 1)
            connected[: token + 1] |= ((keys // 16 - 3) % layer.terms[0].every == 0) | (token - keys < 640)
    assert not connected[u]


def test_a_witness_that_may_not_be_the_smallest_says_so_to_people():
    """Coprime strides, a window that cuts blocks, and the shortest budget."""
    layers = [Layout.parse(f"j%{every}==3 | window 640,1 tokens") for every in (611, 613, 617)]
    classes = classes_of([[x] for x in layers], block=16, causal=True, kv_heads=1)
    verdict = reach(classes, DEFAULT)[0]
    assert verdict.holds is False and "a smaller one may start at token" in verdict.proof
    line = Report("x", (verdict,)).lines()[0]
    assert line.witness.endswith(verdict.proof.removeprefix("witness"))
    assert "a smaller one may start at token" in markdown([Report("x", (verdict,), (verdict,))])
    assert "a smaller one may start at token" in junit([Report("x", (verdict,), (verdict,))])
    assert "a smaller one may start at token" in str(explain(classes, verdict))


def test_the_verdict_counts_only_the_layers_it_is_given():
    windows = Layout.parse("d<2")
    classes = classes_of([[windows], [windows], [Layout.parse("all")]], block=16, causal=True, kv_heads=1)
    whole, first_two = reach(classes, DEFAULT)[0], reach(classes, DEFAULT, within=2)[0]
    assert (whole.holds, whole.value, whole.witness) == (True, 3, None)
    assert first_two.holds is False and first_two.witness is not None
    assert (first_two.witness.query_token, first_two.witness.key_token) == (3 * 16, 0)
