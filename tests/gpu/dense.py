"""Dense attention in fp64 under a mask, and inputs with their memory poisoned around them."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Output and LSE of [batch, heads, rows, head_dim] under bool [heads, rows, keys]; 0 and -inf without any key."""
    share = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(share, 1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~mask, float("-inf"))
    empty = ~mask.any(-1)
    lse = torch.where(empty, float("-inf"), scores.masked_fill(empty[..., None], 0.0).logsumexp(-1))
    weights = scores.masked_fill(empty[..., None], 0.0).softmax(-1).masked_fill(empty[..., None], 0.0)
    return weights @ v, lse


def inputs(package: ModuleType, q_len: int, kv_len: int, dtype: torch.dtype, batch: int = 2) -> list[Tensor]:
    """q, k, v [batch, heads, rows, width] in fp64, of numbers that `dtype` has."""
    heads, kv_heads, dim, v_dim = (package.PATTERN[key] for key in ("heads", "kv_heads", "head_dim", "v_head_dim"))
    shapes = (heads, q_len, dim), (kv_heads, kv_len, dim), (kv_heads, kv_len, v_dim)
    return [torch.randn(batch, *shape).to(dtype).double() for shape in shapes]


def paged(k: Tensor, v: Tensor, lengths: list[int], page: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Caches [pages, page, kv_heads, width] with pages in disorder, NaN where there is no key; and block_table."""
    count, kv_heads, longest, _ = k.shape
    most = -(-longest // page)
    table = torch.randperm(count * most + 1)[: count * most].view(count, most).int()
    shape = count * most + 1, page, kv_heads
    caches = [torch.full((*shape, x.shape[3]), float("nan"), dtype=dtype) for x in (k, v)]
    for request, length in enumerate(lengths):
        for u in range(length):
            where = int(table[request, u // page]), u % page
            caches[0][where], caches[1][where] = k[request, :, u].to(dtype), v[request, :, u].to(dtype)
    return caches[0], caches[1], table


def error(got: Tensor, wanted: Tensor) -> float:
    """By norm, relative; rows without a key must be -inf, and nothing NaN."""
    got, wanted = got.detach().cpu().double(), wanted.detach()
    if not torch.equal(got.isneginf(), wanted.isneginf()):
        return float("inf")
    finite = ~wanted.isneginf()
    return float((got[finite] - wanted[finite]).norm() / wanted[finite].norm().clamp(min=1e-9))
