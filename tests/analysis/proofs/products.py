"""How many layers reach, by Boolean matrix products at tokens: the witness of the proofs."""

from __future__ import annotations

import random

import numpy as np

from patterncc.analysis.geometry.budget import DEFAULT, Budget
from patterncc.analysis.geometry.union import union
from patterncc.analysis.proofs.reach.noncausal_layers import Reached
from patterncc.analysis.proofs.reach.reach import layers_to_reach
from patterncc.ir.layout import Layout
from tests.analysis.oracle import random_layout, random_term, smallest
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
