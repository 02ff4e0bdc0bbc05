"""What the compact cache does not take: patterns that read dropped keys again, wrong shapes."""

from __future__ import annotations

import pytest
import torch

from patterncc import reference
from tests.package.made import HEAD, compiled


@pytest.mark.parametrize(
    ("shards", "witness"),
    [
        ("{heads: all, local: 1, strides: [{every: 2, anchor: query, offset: 0}]}", "row 2 reads column 0"),
        ("{heads: 0-2, local: 2}, {heads: 3, local: 1, strides: [{every: 1, from: 3, to: 5}]}", "head 3: row 3"),
        ("{heads: all, local: 1, globals: {rows: [4]}}", "row 4 reads column 0"),
    ],
)
def test_patterns_that_read_dropped_keys_again_are_refused(shards: str, witness: str) -> None:
    """With the smallest witness, which the definition confirms."""
    pattern, package = compiled(HEAD + f"shards: [{shards}]")
    with pytest.raises(ValueError, match=f"{witness}.*patterncc verify kv"):
        package.KVCache(1)
    found = package.PATTERN["kv"][0]
    head, t, u = found["head"], found["query_token"], found["key_token"]
    assert reference.attends(pattern, 0, head, t, u)
    assert any(not reference.attends(pattern, 0, head, before, u) for before in range(u, t))


def test_not_causal_is_refused() -> None:
    _, package = compiled("both_ways")
    with pytest.raises(ValueError, match="is not causal"):
        package.KVCache(1)


def test_only_the_layer_that_breaks_the_rule_is_refused() -> None:
    _, package = compiled(HEAD + "layers: 2\ndense_layers: 1\nshards: [{heads: all, globals: {rows: [4]}, local: 1}]")
    with pytest.raises(ValueError, match="layer 0"):
        package.KVCache(1, layer=0)
    package.KVCache(1, layer=1)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((1, 4, 1, 16), (1, 4, 1, 16), (1, 4, 1, 16)), r"k must be \[1, 2, n, 16\]"),
        (((2, 4, 1, 16), (2, 2, 1, 16), (2, 2, 1, 16)), r"q must be \[1, 4, n, 16\]"),
        (((1, 4, 1, 16), (1, 2, 2, 16), (1, 2, 2, 16)), "one n for q, k and v"),
        (((1, 4, 1, 8), (1, 2, 1, 8), (1, 2, 1, 8)), "compiled for head_dim 16"),
    ],
)
def test_wrong_shapes_are_said(shapes: tuple[tuple[int, ...], ...], said: str) -> None:
    _, package = compiled("strided")
    with pytest.raises(ValueError, match=said):
        package.KVCache(1).step(*(torch.zeros(shape) for shape in shapes))
