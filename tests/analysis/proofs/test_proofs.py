"""The proofs against brute force over random patterns: every kind of part, causal and not, whole and tiny budgets.

A box of some forty blocks holds the bounds and periods of these patterns, so a proof for every length must agree with
it exactly: same verdict, same smallest witness.

The exhaustive version, 100,000 patterns, takes an hour on two cores: `pytest -m slow -n 2` of this file.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from patterncc.analysis.geometry import first_pair as pairs
from patterncc.analysis.geometry import gaps, outside, residues
from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.geometry.first_pair import first_pair, pieces_of
from patterncc.analysis.geometry.union import union
from patterncc.analysis.proofs.causal import looks_ahead
from patterncc.analysis.proofs.coverage import covered
from patterncc.analysis.proofs.kv import first_return
from patterncc.analysis.proofs.rows import empty_row
from patterncc.ir.layout import Layout
from tests.analysis.oracle import random_layout, smallest, smallest_return
from tests.witness import kept_tokens

BLOCKS = 36
WHOLE = Budget(rows=24)


def agree(answer: Answer, brute: tuple[int, int] | None, tokens: int, what: object) -> None:
    """The answer is right about the box of so many tokens, and claims no more than it may."""
    if answer.holds is True:
        assert brute is None, what
    elif answer.holds is None:
        assert brute is None or brute[0] >= answer.settled, what
    elif answer.smallest and max(answer.pair or ()) < tokens:
        assert answer.pair == brute, what
    elif answer.smallest:
        assert brute is None or brute > answer.pair, what
    else:
        assert brute is None or brute[0] >= answer.settled, what
        assert max(answer.pair or ()) >= tokens or (brute is not None and brute <= answer.pair), what


def check_one(seed: int, budget: Budget, opaque: float) -> set[tuple[str, bool | None]]:
    """One random pattern, all properties; what was answered."""
    r = random.Random(seed)
    causal, block = r.random() < 0.7, r.choice([1, 2, 3, 4])
    layouts = [random_layout(r, causal, opaque * (r.random() < 0.5), block) for _ in range(r.randint(1, 4))]
    tokens = block * BLOCKS
    each = [kept_tokens(layout, tokens, causal=causal, block=block) for layout in layouts]
    every = np.logical_or.reduce(each)
    triangle = np.tri(tokens, dtype=bool) if causal else np.ones((tokens, tokens), bool)
    what = (seed, f"block {block}", f"causal {causal}", *map(str, layouts))
    answers = {
        "coverage": (covered(layouts, causal, block, budget), smallest(triangle & ~every)),
        "kv": (first_return(frozenset(layouts), causal, block, budget), smallest_return(every)),
        "rows": (empty_row(layouts[0], causal, block, budget), first_empty(each[0], causal, block)),
    }
    others = union(layouts[1:])
    beyond = first_pair(pieces_of(union(layouts[:1]), causal), others, causal, block, budget)
    others_kept = np.logical_or.reduce([np.zeros_like(every), *each[1:]])
    answers["subset"] = beyond, smallest(each[0] & ~others_kept)
    if not causal:
        answers["causal"] = looks_ahead(layouts[0], block, budget), smallest(np.triu(each[0], 1))
    for name, (answer, brute) in answers.items():
        agree(answer, brute, tokens, (name, answer, brute, *what))
    return {(name, answer.holds) for name, (answer, _) in answers.items()}


def first_empty(kept: np.ndarray, causal: bool, block: int) -> tuple[int, int] | None:
    for t in range(len(kept)):
        if not kept[t, (t // block * block if causal else 0) : t + 1].any():
            return t // block * block, 0
    return None


def test_proofs_agree_with_brute_force():
    seen = set().union(*(check_one(seed, WHOLE, 0.0) for seed in range(300)))
    both = {(name, holds) for name in ("coverage", "kv", "rows", "subset", "causal") for holds in (True, False)}
    assert seen == both, "every property was seen to hold and to fail, and nothing stayed open"


def test_random_and_mask_parts_agree_with_brute_force():
    seen = set().union(*(check_one(seed, WHOLE, 0.5) for seed in range(10_000, 10_200)))
    assert {("coverage", True), ("coverage", False), ("subset", True)} <= seen
    assert {holds for name, holds in seen if name == "kv"} == {True, False}, "nothing stays open for want of looking"


def test_a_tiny_budget_is_never_a_wrong_answer():
    seen = set()
    for seed in range(20_000, 20_150):
        r = random.Random(seed)
        tiny = Budget(r.choice([1, 4, 16]), r.choice([8, 64]), r.choice([1, 9]), r.choice([4, 20, 80]), 2, 3, 10)
        seen |= check_one(seed, tiny, 0.2)
    assert {("coverage", None), ("kv", None), ("subset", None)} <= seen


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(100))
def test_a_hundred_thousand_patterns(shard: int):
    for seed in range(shard * 1000, shard * 1000 + 1000):
        check_one(seed, WHOLE, 0.3 * (seed % 3 == 0))


def test_the_check_notices_a_wrong_residue(monkeypatch: pytest.MonkeyPatch):
    """Negative control: an engine that overlooks the smallest free residue is caught."""
    right = residues.first_free

    def wrong(arcs, low, high, budget):
        found = right(arcs, low, high, budget)
        return found if found is None or not arcs else right(arcs, found + 1, high, budget)

    monkeypatch.setattr(outside, "first_free", wrong)
    with pytest.raises(AssertionError):
        for seed in range(100):
            check_one(seed, WHOLE, 0.0)


def test_the_check_notices_a_wrong_bound(monkeypatch: pytest.MonkeyPatch):
    """Negative control: an engine that takes terms for wider than they are is caught."""
    right = gaps.box_of
    monkeypatch.setattr(gaps, "box_of", lambda term: wider(right(term)))
    with pytest.raises(AssertionError):
        for seed in range(100):
            check_one(seed, WHOLE, 0.0)


def test_the_check_notices_an_overlooked_return(monkeypatch: pytest.MonkeyPatch):
    """Negative control: a term that may keep a gap's columns again must not be dropped on the way to the gap."""
    right = gaps.Box.before
    monkeypatch.setattr(gaps.Box, "before", lambda gap, later: right(gap, later) and later.i0 <= gap.i0)
    with pytest.raises(AssertionError):
        for seed in range(300):
            check_one(seed, WHOLE, 0.0)


def test_the_check_notices_an_overlooked_random_or_mask_part(monkeypatch: pytest.MonkeyPatch):
    """Negative control: the terms' smallest pair is not smallest when a random or mask part keeps its block."""
    monkeypatch.setattr(pairs, "keeps_block", lambda part, i, j: False)
    with pytest.raises(AssertionError):
        for seed in range(10_000, 10_100):
            check_one(seed, WHOLE, 0.5)


def wider(box):
    return type(box)(box.d0, box.d1 + 1, box.j0, box.j1, box.i0, box.i1)


@pytest.mark.parametrize(
    ("text", "causal", "pair"),
    [
        ("d<16 | j%16==3", True, (16 * 4, 0)),
        ("window 10,1 tokens", True, (10, 0)),
        ("window 10,1 tokens | sink 3 tokens", True, (13, 3)),
        ("d<2 | window 10,1 tokens | sink 3 tokens", True, (13, 3)),
        ("d<3 | window 10,1 tokens | sink 3 tokens", True, (13, 3)),
        ("-2<=d<3", False, (0, 12)),
        ("window 10,6 tokens", False, (0, 6)),
        ("window 10,6 tokens | sink 9 tokens", False, (0, 9)),
        ("all", True, None),
        ("nothing", True, (0, 0)),
        ("j%2==0 | (i-j)%2==0", True, (8, 4)),
        ("j%2==0 | (i-j)%2==0 | i<7", True, (32, 4)),
        ("d<5 | 5<=d & j%3 in 0:2 | 5<=d & j%3==2", True, None),
    ],
)
def test_smallest_tokens(text: str, causal: bool, pair: tuple[int, int] | None):
    """Block 4; worked out by hand."""
    assert covered([Layout.parse(text)], causal, 4, WHOLE) == Answer(pair)
