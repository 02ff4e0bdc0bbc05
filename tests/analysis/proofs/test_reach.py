"""How many layers reach: against Boolean matrix products at tokens, and worked-out cases."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from patterncc.analysis.explain.explain import explain
from patterncc.analysis.explain.report import Report, junit, markdown
from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import DEFAULT, Budget
from patterncc.analysis.geometry.union import union
from patterncc.analysis.proofs.reach import fine, noncausal_layers
from patterncc.analysis.proofs.reach.compose import keeps_blocks
from patterncc.analysis.proofs.reach.noncausal_layers import Reached
from patterncc.analysis.proofs.reach.reach import layers_to_reach, reach
from patterncc.analysis.proofs.reach.sources import sources
from patterncc.ir.layout import Layout
from tests.analysis.oracle import classes_of, random_layout, random_term, smallest
from tests.witness import kept_tokens

BUDGET = Budget(rows=24, side=400)


def unconnected(layers: list[np.ndarray], causal: bool) -> list[tuple[int, int] | None]:
    """After 1, 2, ... layers: the smallest unconnected pair; not causal: at the shortest length that holds it."""
    tokens = len(layers[0])
    found = []
    for n in range(1, len(layers) + 1):
        candidates = []
        for size in [tokens] if causal else range(1, tokens + 1):
            connected = np.eye(size, dtype=bool)
            for kept in layers[:n]:
                step = kept[:size, :size].astype(np.float32)
                connected |= (step @ connected.astype(np.float32)) > 0
            new = np.tri(size, dtype=bool)
            if not causal:
                new = np.zeros((size, size), bool)
                new[-1, :] = new[:, -1] = True
            pair = smallest(~connected & new)
            candidates += [pair] if pair else []
        found.append(min(candidates, default=None))
    return found


def check_one(seed: int, opaque: float, chunks: bool = True) -> tuple[bool, str]:
    r = random.Random(seed)
    causal, block = r.random() < 0.75, r.choice([1, 2, 3])
    layers = [
        [random_layout(r, causal, opaque * (r.random() < 0.5), block, chunks) for _ in range(r.randint(1, 3))]
        for _ in range(r.randint(1, 4))
    ]
    tokens = block * (36 if causal else 12)
    kept = [
        np.logical_or.reduce([kept_tokens(x, tokens, causal=causal, block=block) for x in heads]) for heads in layers
    ]
    brute = unconnected(kept, causal)
    answer = layers_to_reach([union(heads) for heads in layers], causal, block, BUDGET)
    what = (seed, causal, block, [[str(x) for x in heads] for heads in layers], answer, brute)
    least = next((n for n, pair in enumerate(brute, 1) if pair is None), len(layers) + 1)
    pair = answer.answer.pair
    if answer.at_most is not None:
        assert brute[answer.at_most - 1] is None, what
        assert least <= answer.at_most and answer.at_least <= answer.at_most, what
    elif pair is None:
        assert brute[-1] is None or brute[-1][0] >= answer.answer.settled, what
    elif max(pair) < tokens:
        assert brute[-1] == pair if answer.answer.smallest else brute[-1] is not None and brute[-1] <= pair, what
    else:
        assert brute[-1] is None or brute[-1] > pair or not answer.answer.smallest, what
    exact = answer.at_least == answer.at_most
    return causal, "exact" if exact else "range" if answer.at_most else "fails" if pair else "open"


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


def check_terms(seed: int) -> Reached:
    """Terms alone, looking ahead: nothing stays open, at lengths well beyond those that are composed first."""
    r = random.Random(seed)
    layers = [
        [Layout(tuple(random_term(r, False) for _ in range(r.randint(1, 3)))) for _ in range(r.randint(1, 2))]
        for _ in range(r.randint(1, 4))
    ]
    tokens = 48
    kept = [np.logical_or.reduce([kept_tokens(x, tokens, causal=False, block=1) for x in heads]) for heads in layers]
    brute = unconnected(kept, False)
    found = layers_to_reach([union(heads) for heads in layers], False, 1, DEFAULT)
    what = (seed, [[str(x) for x in heads] for heads in layers], found, brute)
    pair = found.answer.pair
    if found.at_most is not None:
        assert found.at_least == found.at_most == next(n for n, gap in enumerate(brute, 1) if gap is None), what
    else:
        assert pair is not None and found.answer.smallest, what
        assert brute[-1] == pair if max(pair) < tokens else brute[-1] is None or brute[-1] > pair, what
    return found


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
