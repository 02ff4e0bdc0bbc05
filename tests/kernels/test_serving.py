"""Paged caches and decoding in Triton's interpreter, against dense attention in fp64, one request at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.kernels.held import GROUPS, HEAD, Held, check_lse, check_out, held, placed

pytestmark = [pytest.mark.interpret, pytest.mark.usefixtures("poisoned")]

BY_QUERY_HEAD = GROUPS + "shards: [{heads: all, local: 20 tokens, stride: 4, offset: h}]"
LAYOUTS = ["plain", "heads first", "both in one"]


@dataclass(frozen=True)
class Batch:
    """Requests of (queries, keys) over one paged cache, and each one's own q, k and v [1, heads, tokens, head_dim]."""

    requests: tuple[tuple[Tensor, Tensor, Tensor], ...]
    k_cache: Tensor
    v_cache: Tensor
    block_table: Tensor

    @property
    def q(self) -> Tensor:
        """[total_q, heads, head_dim], between NaN."""
        return placed(torch.cat([q for q, _, _ in self.requests], 2))[0].transpose(0, 1)

    @property
    def seq_lens(self) -> Tensor:
        return torch.tensor([k.shape[2] for _, k, _ in self.requests], dtype=torch.int32)

    @property
    def starts(self) -> Tensor:
        return torch.tensor([0, *(q.shape[2] for q, _, _ in self.requests)]).cumsum(0).int()


def paged(
    of: Held,
    lengths: Sequence[tuple[int, int]],
    *,
    page: int = 16,
    layout: str = "plain",
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Pages in random order, with NaN in every page and head that no query keeps, and behind every sequence's end.

    Layouts: pages, tokens, heads; vLLM's, where heads stand outside tokens and K and V share a row; vLLM's, where K and
    V are halves of one tensor. What the block table says behind a sequence's last page is no page at all.
    """
    pattern, make = of.pattern, torch.Generator().manual_seed(sum(b for _, b in lengths))
    shapes = (
        (pattern.heads, pattern.head_dim),
        (pattern.kv_heads, pattern.head_dim),
        (pattern.kv_heads, pattern.v_head_dim),
    )
    requests = tuple(
        tuple(
            torch.randn(1, heads, n, width, generator=make).to(dtype)
            for (heads, width), n in zip(shapes, (queries, keys, keys), strict=True)
        )
        for queries, keys in lengths
    )
    used = [-(-keys // page) for _, keys in lengths]
    table = torch.full((len(lengths), max(used) + 1), 2**30, dtype=torch.int32)
    order = torch.randperm(sum(used) + 3, generator=make).int()
    for n, pages in enumerate(used):
        table[n, :pages] = order[sum(used[:n]) : sum(used[: n + 1])]
    k_cache, v_cache = caches(layout, len(order), page, pattern.kv_heads, pattern.head_dim, dtype, pattern.v_head_dim)
    for n, (q, *keys_and_values) in enumerate(requests):
        length = keys_and_values[0].shape[2]
        kept = reference.dense_mask(pattern, 0, q.shape[2], length).any(1)
        kept = kept.view(pattern.kv_heads, -1, length).any(1)  # [kv_heads, length]
        for first in range(0, length, page):
            stop, place = min(first + page, length), int(table[n, first // page])
            alive = kept[:, first:stop].any(1)
            for cache, x in zip((k_cache, v_cache), keys_and_values, strict=True):
                cache[place, : stop - first, alive] = x[0, alive, first:stop].transpose(0, 1)
    return Batch(requests, k_cache, v_cache, table)  # type: ignore[arg-type]


def caches(
    layout: str, pages: int, page: int, heads: int, dim: int, dtype: torch.dtype, v_dim: int = 0
) -> tuple[Tensor, Tensor]:
    """Two views [pages, page, heads, dim], the second of `v_dim` where that is given, full of NaN."""
    nan, v_dim = float("nan"), v_dim or dim
    if layout == "heads first":
        both = torch.full((pages, heads, page, dim + v_dim), nan, dtype=dtype).transpose(1, 2)
        return both[..., :dim], both[..., dim:]
    if layout == "both in one":
        both = torch.full((pages, 2, page, heads, dim), nan, dtype=dtype)
        return both[:, 0], both[:, 1]
    return tuple(torch.full((pages, page, heads, n), nan, dtype=dtype) for n in (dim, v_dim))  # type: ignore[return-value]


def check(of: Held, batch: Batch, out: Tensor, lse: Tensor) -> None:
    """Output [total_q, heads, head_dim] and LSE [heads, total_q]."""
    outs = out.split([q.shape[2] for q, _, _ in batch.requests])
    lses = lse.split([q.shape[2] for q, _, _ in batch.requests], 1)
    for request, one, one_lse in zip(batch.requests, outs, lses, strict=True):
        true, true_lse = reference.attention(of.pattern, *request)
        check_out(one.transpose(0, 1)[None], true, true_lse)
        check_lse(one_lse[None], true_lse)


def check_paged(of: Held, batch: Batch) -> None:
    where = batch.k_cache, batch.v_cache, batch.block_table, batch.seq_lens
    out, lse = of.package.attention_paged(batch.q, *where, batch.starts, return_lse=True)
    check(of, batch, out, lse)


def check_decode(of: Held, batch: Batch) -> None:
    queries = batch.requests[0][0].shape[2]
    where = batch.k_cache, batch.v_cache, batch.block_table, batch.seq_lens
    q = batch.q.unflatten(0, (-1, queries))
    out, lse = of.package.decode(q, *where, return_lse=True)
    assert (out.shape, lse.shape) == (q.shape, (len(q), of.pattern.heads, queries))
    check(of, batch, out.flatten(0, 1), lse.transpose(0, 1).flatten(1))


MIXED = [(1, 90), (20, 57), (33, 33), (1, 1), (0, 20)]  # decoding, a chunk of a prompt, prompts, no query at all


@pytest.mark.parametrize(("page", "layout"), [(16, "plain"), (32, "heads first"), (48, "both in one")])
@pytest.mark.parametrize("text", [BY_QUERY_HEAD, "mixed"], ids=["closed", "table"])
def test_a_mixed_batch(text: str, page: int, layout: str) -> None:
    """Pages of one block, of two, and of no power of two."""
    of = held(text)
    check_paged(of, paged(of, MIXED, page=page, layout=layout))


@pytest.mark.parametrize("name", ["tokens", "dilated", "some_dense", "far", "globals"])
def test_decoding(name: str) -> None:
    of = held(name)
    check_decode(of, paged(of, [(1, 90), (1, 33), (1, 1), (1, 16)], layout="heads first"))


@pytest.mark.parametrize("queries", [2, 3])
@pytest.mark.parametrize("text", [BY_QUERY_HEAD, "drawn"], ids=["closed", "table"])
def test_a_few_queries_at_once(text: str, queries: int) -> None:
    """As speculative decoding asks for: among them some that straddle two blocks."""
    of = held(text)
    check_decode(of, paged(of, [(queries, 97), (queries, 50), (queries, queries)]))


@pytest.mark.parametrize("splits", [2, 9])
@pytest.mark.parametrize("text", [BY_QUERY_HEAD, "mixed"], ids=["closed", "table"])
def test_programs_that_share_the_keys(text: str, splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More programs than tiles too: their parts are empty, and weigh nothing."""
    of = held(text)
    monkeypatch.setattr(of.part("launch.configs"), "LEAST_SAVED", 2)  # no heads share near keys
    monkeypatch.setattr(of.part("launch.configs"), "splits", lambda *_: splits)
    check_decode(of, paged(of, [(1, 150), (1, 17)] if splits < 9 else [(1, 40)]))


def test_a_part_that_kept_nothing_is_not_read() -> None:
    """The kernel that merges several programs' parts: NaN in a part whose LSE is -inf adds nothing."""
    of, none = held(BY_QUERY_HEAD), -float("inf")
    parts = torch.full((2, 3, 1, of.pattern.head_dim), float("nan"))
    parts[0, 0], parts[1, 1] = 2.0, 3.0
    lses = torch.tensor([[[0.5, none, none]], [[none, 0.25, none]]])
    out, lse = torch.empty(parts.shape[1:]), torch.empty(1, 3)
    strides = *parts.stride()[:3], *lses.stride()[:2], *out.stride()[:2], lse.stride(0)
    of.part("kernels.combine").attn_combine_held[3, 1](parts, lses, out, lse, 2, *strides, SPLITS=2)
    assert torch.equal(lse, torch.tensor([[0.5, 0.25, none]]))
    assert torch.equal(out[:, 0, 0], torch.tensor([2.0, 3.0, 0.0]))


def test_heads_that_are_alike_share_a_tile() -> None:
    """Eight query heads of one KV head, of two classes, three of one and five of the other."""
    text = HEAD.replace("heads: 2\n", "heads: 8\n", 1) + "shards: [{heads: '0-2', local: 2}, {heads: rest, stride: 3}]"
    of = held(text)
    check_decode(of, paged(of, [(1, 80), (1, 47)], page=32))


def test_lists_whose_numbers_lie_apart() -> None:
    """Lengths, pages and starts are read as they are, whatever their strides."""
    of = held(BY_QUERY_HEAD)
    batch = paged(of, [(1, 80), (1, 47)])
    place, lists = (batch.q, batch.k_cache, batch.v_cache), (batch.block_table, batch.seq_lens, batch.starts)
    apart = [x.repeat_interleave(2, -1)[..., ::2] for x in lists]
    assert not any(x.is_contiguous() for x in apart)
    wanted = of.package.attention_paged(*place, *lists)
    assert torch.equal(of.package.attention_paged(*place, *apart), wanted)
    q, k, v = (torch.randn(40, n, of.pattern.head_dim) for n in (of.pattern.heads, *[of.pattern.kv_heads] * 2))
    starts = torch.tensor([0, 7, 40], dtype=torch.int32)
    lengths = 33, 33
    wanted = of.package.attention_varlen(q, k, v, starts, starts, *lengths)
    apart = starts.repeat_interleave(2)[::2]
    assert torch.equal(of.package.attention_varlen(q, k, v, apart, apart, *lengths), wanted)


def test_keys_are_split_by_the_programs_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by KV heads: those whose query heads keep different columns take a program for each kind."""
    text = HEAD.replace("heads: 2\n", "heads: 8\n", 1) + "shards: [{heads: '0-2', local: 2}, {heads: rest, stride: 3}]"
    of, asked = held(text), list[int]()
    monkeypatch.setattr(of.part("launch.configs"), "splits", lambda processors, tiles, keys: asked.append(tiles) or 1)
    grids: list[int] = []
    launch = of.part("launch.kept").Launch.__call__

    def seen(self, kernel, grid, *given):  # type: ignore[no-untyped-def]
        grids.append(grid[0] * grid[1] * grid[2])
        launch(self, kernel, grid, *given)

    monkeypatch.setattr(of.part("launch.kept").Launch, "__call__", seen)
    check_decode(of, paged(of, [(1, 80), (1, 47)], page=32))
    assert asked == grids == [2 * 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    of = held(BY_QUERY_HEAD)
    check_decode(of, paged(of, [(1, 70), (1, 20)], dtype=dtype, layout="both in one"))


def test_large_blocks_and_small_pages() -> None:
    of = held(HEAD.replace("block: 16", "block: 64") + "shards: [{heads: all, local: 70 tokens, stride: 3}]")
    check_paged(of, paged(of, [(1, 500), (30, 300)], page=16, layout="heads first"))


def test_pages_that_end_within_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of 48 keys under blocks of 64 and tiles of 32: a tile within a block may straddle two pages."""
    of = held(HEAD.replace("block: 16", "block: 64") + "shards: [{heads: all, local: 2, stride: 2}]")
    configs = of.part("launch.configs")
    monkeypatch.setattr(configs, "forward", lambda *_: configs.Config(16, 32, 4, 2))
    check_paged(of, paged(of, [(1, 300), (20, 250)], page=48))


def test_a_request_that_keeps_nothing() -> None:
    of = held(HEAD + "shards: [{heads: all, strides: [{every: 1, from: 3}]}]")
    check_decode(of, paged(of, [(1, 40), (1, 80)]))


def test_the_comparison_sees_a_wrong_page() -> None:
    """Negative control: two pages of one request exchanged."""
    of = held(BY_QUERY_HEAD)
    batch = paged(of, [(1, 90)])
    batch.block_table[0, [4, 5]] = batch.block_table[0, [5, 4]]
    with pytest.raises(AssertionError):
        check_decode(of, batch)
