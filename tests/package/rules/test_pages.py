"""Dead pages: exactly those that no later query of the dense mask reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import patterncc
from patterncc.language import load, loads
from patterncc.reference import keeps
from patterncc.runtime.gallery import find

SHARDS = [
    "{heads: all, local: 2, stride: 4, offset: g}",
    "{heads: all, local: 2, stride: 8, offset: h, sink: 3 tokens}",
    "{heads: all, local: 40 tokens}",
    "{heads: all, local: 1, strides: [{every: 3, anchor: query, to: 7}]}",
    "{heads: all, chunk: 5}",
    "{heads: all, dense: true}",
]


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("page", [16, 8, 24, 64])
def test_pages_are_dead_exactly_when_nothing_reads_them_later(tmp_path: Path, shard: str, page: int) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        f"pattern: 1\nname: paged_{page}\nheads: 4\nkv_heads: 2\nhead_dim: 16\nlayers: 2\nblock: 16\n"
        f"shards: [{shard}]\ndense_layers: 1\npromises: {{}}\n"
    )
    package, pattern = patterncc.load(path), load(path)
    end = 800  # every pattern here repeats, or ends, well before
    t = np.arange(end)
    read = np.stack([keeps(pattern, 0, head, t, t) for head in range(4)]).any(0)  # [queries, keys]
    before: set[int] = set()
    for length in (1, 16, 47, 48, 200, 333):
        dead = package.dead_pages(length, page)
        pages = -(-length // page)
        assert dead.dtype == torch.bool and dead.shape == (pages,)
        later = read[length:].any(0)
        for p in range(pages):
            whole = (p + 1) * page <= length
            assert bool(dead[p]) == (whole and not later[p * page : (p + 1) * page].any()), (length, p)
        now = set(dead.nonzero()[:, 0].tolist())
        assert before <= now
        before = now
        assert not package.dead_pages(length, page, layer=1).any()


def test_nothing_dies_where_queries_look_ahead() -> None:
    package = patterncc.load("bert_local")
    assert not package.dead_pages(500, 16).any() and len(package.dead_pages(0, 16)) == 0


def test_mistakes() -> None:
    package = patterncc.load("demo")
    for arguments in ((-1, 16), (10, 0), (10, 16.5)):
        with pytest.raises((TypeError, ValueError)):
            package.dead_pages(*arguments)


def test_a_strided_layer_frees_most_pages() -> None:
    """By head only a window and an eighth live; with one offset for all heads the pages follow."""
    pattern = loads(Path(find("s2_strided")).read_text())
    package = patterncc.load("s2_strided")
    assert package.dead_pages(16_384, pattern.block).float().mean() < 1
