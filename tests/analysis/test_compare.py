"""Two patterns: which pairs one keeps and the other does not, and what that costs."""

from __future__ import annotations

import json

from patterncc.analysis.explain.diff import diff
from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.proofs.compare import compare
from patterncc.ir.layout import Layout
from patterncc.language import load
from patterncc.passes import lower
from tests.analysis import oracle
from tests.analysis.patterns import GALLERY, one, s2


def test_compare_finds_the_first_pair_each_way():
    a, b = lower(s2("g")), lower(s2("h"))
    found = compare(a, b)
    assert found.equal is False and found.subset is False
    assert found.only_in_a is not None and found.only_in_b is not None
    assert (found.only_in_a.layer, found.only_in_a.head, found.only_in_a.witness.row) == (0, 1, 16)
    assert found.only_in_b.head == 16, "head 16 keeps residue 0 with offset h, residue 4 with offset g"
    assert (0, 0) not in found.heads and (0, 1) in found.heads
    assert compare(a, a).equal is True and compare(a, a).subset is True


def test_random_parts_that_are_the_same_are_equal_for_every_length():
    drawn = one("d<2 | random 2 seed 3")
    assert compare(drawn, drawn).equal is True
    gallery = lower(load(GALLERY / "bigbird.yaml"))
    assert compare(gallery, gallery).equal is True
    more = compare(drawn, one("d<2 | j%4==0 | random 2 seed 3"))
    assert (more.equal, more.subset, more.only_in_a, more.note) == (False, True, None, "")
    other = compare(drawn, one("d<2 | random 2 seed 4"))
    assert other.only_in_a and other.only_in_b and other.subset is False


def test_what_is_undecided_one_way_is_no_subset():
    far = "i<100000000"  # beyond, only looking would tell
    found = compare(one("d<3 | random 1 seed 3"), one(f"d<4 | {far}"), Budget(rows=5))
    assert found.only_in_b and (found.equal, found.subset, found.only_in_a) == (False, None, None)
    assert found.note == "only in a: decided up to 6400000000 tokens"


def test_equal_by_meaning_though_written_differently():
    a = one("d<2 | 2<=d & j%2==0 | 2<=d & j%2==1")
    assert compare(a, one("all")).equal is True
    assert compare(one("window 128,1 tokens | d<2"), one("window 128,1 tokens | d<1")).only_in_b is None
    wider = compare(one("window 129,1 tokens"), one("window 128,1 tokens"))
    assert wider.only_in_a is not None and wider.only_in_b is None
    assert (wider.only_in_a.witness.query_token, wider.only_in_a.witness.key_token) == (128, 0)


def test_compare_across_shapes_and_causality():
    assert compare(one("d<4"), one("d<4", causal=False)).only_in_b is not None
    two = oracle.classes_of([[Layout.parse("d<4")] * 2], block=64, causal=True, kv_heads=1)
    found = compare(one("d<4"), two)
    assert found.equal is False and found.only_in_b is not None and found.only_in_b.head == 1


def test_compare_across_blocks_looks_at_the_first_tokens():
    fine = oracle.classes_of([[Layout.parse("d<4")]], block=16, causal=True, kv_heads=1)
    found = compare(one("d<1"), fine)
    assert found.equal is False and "tokens of a block: 64 against 16" in found.note
    assert found.only_in_a is None, "64 tokens of the own block against 4 blocks of 16"
    assert found.only_in_b is not None
    assert (found.only_in_b.witness.query_token, found.only_in_b.witness.key_token) == (64, 16)


def test_diff_tells_cost_and_verdicts():
    told = diff(lower(s2("g")), lower(s2("h"))).to_json()
    assert told["equal"] is False
    assert {"row", "column", "query_token", "key_token", "layer", "head"} <= set(told["only_in_a"])
    assert told["figures"]["kv_bytes_kept"]["b"] > 3 * told["figures"]["kv_bytes_kept"]["a"]
    assert {"property": "coverage", "scope": "layer", "a": False, "b": True} in told["verdicts"]
    json.dumps(told)
    same = diff(lower(s2("g")), lower(s2("g"))).to_json()
    assert (same["equal"], same["only_in_a"], same["only_in_b"], same["verdicts"]) == (True, None, None, [])
