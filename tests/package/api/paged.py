"""Paged caches with junk between their pages, and dense attention over what they hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patterncc import reference
from patterncc.language.model import Pattern


def cumulative(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


@dataclass(frozen=True)
class Paged:
    """Requests whose keys lie in shuffled pages of a cache; what holds no key of a request is NaN."""

    q_lens: list[int]
    lengths: list[int]
    q: Tensor  # [total_q, heads, dim]
    keys: list[Tensor]  # [kv_heads, length, dim] of each request
    values: list[Tensor]
    k_cache: Tensor  # [pages, page_size, kv_heads, dim], a view of `storage`
    v_cache: Tensor
    block_table: Tensor
    storage: Tensor

    @property
    def where(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.block_table, torch.tensor(self.lengths).int(), cumulative(self.q_lens)


def paged(pattern: Pattern, requests: list[tuple[int, int]], page: int, vllm: str) -> Paged:
    """`vllm`: the layout of the storage, of which k_cache and v_cache are views."""
    torch.manual_seed(page)
    heads, dim = pattern.kv_heads, pattern.head_dim
    q_lens, lengths = (list(x) for x in zip(*requests, strict=True))
    needs = [-(-length // page) for length in lengths]
    pages = sum(needs) + 3
    if vllm == "[blocks, kv_heads, page, 2*dim]":
        storage = torch.full((pages, heads, page, 2 * dim), float("nan"))
        k_cache, v_cache = (x.transpose(1, 2) for x in storage.split(dim, dim=-1))
    elif vllm == "[blocks, 2, page, kv_heads, dim]":
        storage = torch.full((pages, 2, page, heads, dim), float("nan"))
        k_cache, v_cache = storage.unbind(1)
    else:
        storage = torch.full((2, pages, page, heads, dim), float("nan"))
        k_cache, v_cache = storage.unbind(0)
    shuffled = torch.randperm(pages)
    table = torch.full((len(requests), max(needs) + 2), -1, dtype=torch.int32)  # past the end: no page at all
    keys, values, first = [], [], 0
    for n, (length, need) in enumerate(zip(lengths, needs, strict=True)):
        mine = shuffled[first : first + need]
        first, table[n, :need] = first + need, mine.int()
        k, v = torch.randn(2, length, heads, dim).unbind()
        token = torch.arange(length)
        k_cache[mine[token // page], token % page] = k
        v_cache[mine[token // page], token % page] = v
        keys.append(k.transpose(0, 1))
        values.append(v.transpose(0, 1))
    q = torch.randn(sum(q_lens), pattern.heads, dim)
    return Paged(q_lens, lengths, q, keys, values, k_cache, v_cache, table, storage)


def per_request(pattern: Pattern, case: Paged) -> tuple[Tensor, Tensor]:
    """Output [total_q, heads, dim] and LSE [heads, total_q] of dense attention."""
    outs, lses, first = [], [], 0
    for n, (q_len, length) in enumerate(zip(case.q_lens, case.lengths, strict=True)):
        q = case.q[first : first + q_len].transpose(0, 1)[None]
        first += q_len
        if q_len and length:
            out, lse = reference.attention(pattern, q, case.keys[n][None], case.values[n][None])
            outs.append(out[0].transpose(0, 1))
            lses.append(lse[0])
    return torch.cat(outs), torch.cat(lses, 1)
