"""The Hopper forward on packed sequences and on pages: what lies beside a request's keys is NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon import hopper
from tests.gluon.test_forward import RULES, check, made
from tests.kernels.held import quick

LENGTHS = (([70, 200, 1, 130], [70, 300, 90, 130]), ([0, 65, 5], [40, 65, 200]), ([3], [0]))
VARIANTS = [(name, block, page) for name in RULES for block in (16, 64, 128) for page in (0, 16, 48, 64, 256)]
CHOSEN = [("strided", 64, 0), ("strided", 64, 64), ("wide", 16, 48), ("both_ways_tokens", 16, 0), ("mixed", 128, 16)]


def requests_of(pattern: Any, q_lens: list[int], kv_lens: list[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """q, k and v of each request. [1, heads, rows, head_dim]"""
    make = torch.Generator().manual_seed(sum(q_lens))
    heads = pattern.heads, pattern.kv_heads, pattern.kv_heads

    def drawn(heads: int, rows: int) -> Tensor:
        return torch.randn(1, heads, rows, pattern.head_dim, generator=make)

    return [
        tuple(drawn(h, n) for h, n in zip(heads, (q_len, kv_len, kv_len), strict=True))  # type: ignore[misc]
        for q_len, kv_len in zip(q_lens, kv_lens, strict=True)
    ]


def packed(parts: list[Tensor], room: int) -> Tensor:
    """[rows, heads, head_dim], and `room` rows of NaN behind them."""
    rows = torch.cat([x[0].transpose(0, 1) for x in parts])
    return torch.cat([rows, rows.new_full((room, *rows.shape[1:]), float("nan"))])


def paged(parts: list[Tensor], page: int, order: Tensor) -> Tensor:
    """A cache [pages, page, heads, head_dim] in which the requests' pages lie in this order, else NaN."""
    _, heads, _, dim = parts[0].shape
    cache = torch.full((order.numel() + 2, page, heads, dim), float("nan"))
    for x, pages in zip(parts, order, strict=True):
        for n in range(-(-x.shape[2] // page)):
            some = x[0, :, n * page : (n + 1) * page].transpose(0, 1)
            cache[pages[n], : len(some)] = some
    return cache


def starts(lengths: list[int]) -> Tensor:
    return torch.tensor([sum(lengths[:n]) for n in range(len(lengths) + 1)], dtype=torch.int32)


@pytest.mark.parametrize("variant", quick(VARIANTS, *CHOSEN), ids=lambda v: f"{v[0]}-{v[1]}-page{v[2]}")
def test_packed_and_paged(variant: tuple[str, int, int]) -> None:
    check_packed(*made(*variant[:2]), variant[2])


def check_packed(of: Any, launcher: Any, kernel: Any, page: int) -> None:
    """Requests of these LENGTHS, each against the reference; in pages of so many keys, or packed where that is 0."""
    for seed, (q_lens, kv_lens) in enumerate((LENGTHS[0], *LENGTHS)):
        each = requests_of(of.pattern, q_lens, kv_lens)
        count, left = len(each), 9  # rows of q that no request has
        q = packed([x[0] for x in each], left)
        if page:
            longest = max(1, -(-max(kv_lens) // page))
            order = torch.randperm(count * longest + 2)[: count * longest].view(count, longest).int()
            k, v = (paged([x[n] for x in each], page, order) for n in (1, 2))
            where = (torch.tensor(kv_lens, dtype=torch.int32), order)
            kv_len = longest * page
        else:
            k, v = (packed([x[n] for x in each], 64) for n in (1, 2))
            where, kv_len = (starts(kv_lens), None), max(kv_lens)
        out, lse = torch.full_like(q, float("nan")), torch.full((q.shape[1], len(q)), float("nan"))
        requests = launcher.Requests(count, max(q_lens), kv_len, 0, 0, starts(q_lens), *where, len(q))
        programs = 3 if seed else 99  # with one tile or none each
        hopper.forward(kernel, launcher, q, k, v, out, lse, requests, seed=seed, programs=programs)
        for n, inputs in enumerate(each):
            rows = slice(int(starts(q_lens)[n]), int(starts(q_lens)[n + 1]))
            check((out[rows].transpose(0, 1)[None], lse[None, :, rows]), reference.attention(of.pattern, *inputs))
        assert (out[-left:] == 0).all() and (lse[:, -left:] == float("-inf")).all()
