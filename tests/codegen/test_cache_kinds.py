"""The kinds of caches that binaries are shipped for, against what caches of a package hand to their kernels."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch

from patterncc.codegen.cache_kinds import CacheKind, Part, cache_kinds
from tests.kernels.held import held

HEAD = "pattern: 1\nname: held\nheads: 6\nkv_heads: 3\nhead_dim: 16\nblock: 16\npromises: {}\n"
BLOCKS, TOKENS = "local: 2", "local: 20 tokens, sink: 3 tokens"
RULES = {
    "windows in some": f"shards: [{{heads: 0-1, {TOKENS}}}, {{heads: rest, {BLOCKS}}}]",
    "apart in some": f"shards: [{{heads: 0-2, {BLOCKS}}}, {{heads: rest, local: 3}}]",
    "apart, and windows and sinks elsewhere": "shards: [{heads: 0, local: 2}, {heads: 1, local: 3}, "
    "{heads: 2-3, local: 20 tokens}, {heads: 4-5, local: 2, sink: 3 tokens}]",
    "layers": f"layers: 2\nshards: [{{heads: all, {TOKENS}}}]\ndense_layers: 1\n",
}


def given_to_kernels(package: Any, part: Part) -> CacheKind:
    """What a cache for this part hands to its kernels."""
    cache = package.KVCache(1, layer=part.layer, head_offset=part.first, heads=part.heads)
    given: list[CacheKind] = []

    class Seen:
        @staticmethod
        def put(bank: Any, k: Any, v: Any, lengths: Any, longer: Any, news: Any, tables: Any) -> None:
            given.append(CacheKind(bank.until.shape[1] == 1, *(x is not None for x in tables[1:])))

        @staticmethod
        def attend(*_given: Any) -> None: ...

    newest = [torch.zeros(1, n, 1, 16) for n in (part.heads, part.heads // 2, part.heads // 2)]
    cache._launch(Seen, *newest, 1.0, [1], None)
    assert len(given) == 1
    return given[0]


@pytest.mark.parametrize("name", RULES)
def test_every_cache_of_whole_kv_heads_is_of_one_of_the_kinds(name: str) -> None:
    of = held(HEAD + RULES[name])
    pattern = of.part("pattern")
    found = cache_kinds(pattern)
    assert {kind: given_to_kernels(of.package, part) for kind, part in found.items()} == {kind: kind for kind in found}
    runs = [
        Part(layer, 2 * first, 2 * (stop - first))
        for layer in range(of.pattern.layers)
        for first, stop in combinations(range(4), 2)
    ]
    assert {given_to_kernels(of.package, part) for part in runs} == set(found)
    assert len(found) > 1


@pytest.mark.parametrize(
    ("rules", "count"),
    [
        ("causal: false\nshards: [{heads: all, local: 2}]", 0),
        ("shards: [{heads: all, local: 1, globals: {rows: [4]}}]", 0),
        ("shards: [{heads: all, local: 2}]", 1),
    ],
)
def test_a_pattern_without_a_cache_has_no_kinds(rules: str, count: int) -> None:
    """One that is not causal, and one of which a row takes up again what rows before it dropped."""
    assert len(cache_kinds(held(HEAD + rules).part("pattern"))) == count
