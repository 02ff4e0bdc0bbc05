"""Entries of `layouts` that state sizes: what they leave out, and that heads are counted by the layer's own."""

from __future__ import annotations

import numpy as np
import pytest

from patterncc import language
from patterncc.errors import PatternError
from patterncc.language.shape import Shape

TOP = "pattern: 1\nname: demo\nlayers: 3\nblock: 16\nshards: [{heads: all, local: g + 1}]\n"
WHOLE = "heads: 8\nkv_heads: 2\nhead_dim: 64\nv_head_dim: 32\n"


def layer_1(stated: str, top: str = WHOLE) -> Shape:
    """The shape of layer 1, whose entry states so much."""
    pattern = language.loads(f"{TOP}{top}layouts: [{{layers: 1, {stated}shards: [{{heads: all, local: g + 1}}]}}]\n")
    assert pattern.shape(0) == pattern.shape(2) == pattern.shapes[0]
    return pattern.shape(1)


@pytest.mark.parametrize(
    ("stated", "shape"),
    [
        ("", Shape(8, 2, 64, 32)),
        ("heads: 12, ", Shape(12, 2, 64, 32)),
        ("heads: 12, kv_heads: 4, ", Shape(12, 4, 64, 32)),
        ("kv_heads: 8, ", Shape(8, 8, 64, 32)),
        ("head_dim: 128, ", Shape(8, 2, 128, 32)),
        ("head_dim: 128, v_head_dim: 128, ", Shape(8, 2, 128, 128)),
    ],
)
def test_what_an_entry_leaves_out_is_the_patterns(stated: str, shape: Shape) -> None:
    assert layer_1(stated) == shape


@pytest.mark.parametrize(
    ("stated", "shape"),
    [
        ("heads: 12, ", Shape(12, 12, 128)),
        ("head_dim: 64, ", Shape(8, 8, 64, 64)),
        ("kv_heads: 2, ", Shape(8, 2, 128)),
        ("v_head_dim: 64, ", Shape(8, 8, 128, 64)),
    ],
)
def test_what_neither_says_follows_the_entry(stated: str, shape: Shape) -> None:
    assert layer_1(stated, top="heads: 8\n") == shape


def test_expressions_count_the_layers_own_heads() -> None:
    entry = "{layers: 1, heads: 12, kv_heads: 4, shards: [{heads: 0::2, local: g + 1}, {heads: rest, local: h + 1}]}"
    pattern = language.loads(f"{TOP}{WHOLE}layouts: [{entry}]\n")
    assert [shard.local for shard in pattern.shards_of(0)] == [(1, 1)] * 4 + [(2, 1)] * 4
    assert [shard.local for shard in pattern.shards_of(1)][::2] == [(g + 1, 1) for g in (0, 0, 1, 2, 2, 3)]
    assert [shard.local for shard in pattern.shards_of(1)][1::2] == [(h + 1, 1) for h in (1, 3, 5, 7, 9, 11)]
    assert pattern.shard(1, 11).local == (12, 1)
    with pytest.raises(IndexError, match="head 8 of layer 0, which has 8 heads"):
        pattern.shard(0, 8)


def test_a_mask_is_for_the_layers_own_heads(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for heads in (8, 12):
        np.save(tmp_path / f"m{heads}.npy", np.ones((heads, 3, 3), dtype=bool))
    entry = "layouts: [{{layers: 1, heads: 12, shards: [{{heads: all, mask: m{}.npy}}]}}]\n"
    assert language.loads(TOP + WHOLE + entry.format(12), folder=tmp_path).shard(1, 11).mask is not None
    with pytest.raises(PatternError, match="the mask is for 8 heads"):
        language.loads(TOP + WHOLE + entry.format(8), folder=tmp_path)


def test_heads_of_all_layers_are_bounded_together() -> None:
    entry = "layouts: [{layers: 1-2047, heads: 2, kv_heads: 2, shards: [{heads: all, local: 1}]}]\n"
    text = "pattern: 1\nname: demo\nlayers: {}\nblock: 16\nheads: 4096\nshards: [{{heads: all, local: 1}}]\n"
    assert len(language.loads(text.format(2048) + entry).shapes) == 2048  # 4,096 heads and 2,047 times two
    with pytest.raises(PatternError, match="the heads of 2064 layers are 73726; the most is 65536"):
        language.loads(text.format(2064) + entry)
