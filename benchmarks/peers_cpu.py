"""What the generated package is held against on a CPU: dense attention, and compiled flex_attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention as torch has it."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def dense_through_fp32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Dense attention in fp32 with casts before and after, the usual workaround where torch's backward is slow in 16
    bits."""
    return dense(q.float(), k.float(), v.float()).to(q.dtype)


def flex(tokens: int, *, heads: int, block: int, local: int, stride: int) -> Attention:
    """Compiled flex_attention with the mask of `patterns.strided`; its block mask is built by blocks, which is its
    fastest way, and it is compiled for the very shape."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    n = tokens // block
    h, i, j = torch.arange(heads).view(-1, 1, 1), torch.arange(n).view(1, -1, 1), torch.arange(n).view(1, 1, -1)
    kept = (j <= i) & ((i - j < local) | ((j - h) % stride == 0))
    tables: list[Tensor] = []
    for blocks in (kept & (i == j), kept & (i != j)):
        tables.append(blocks.sum(-1, dtype=torch.int32)[None])
        tables.append(torch.argsort(blocks.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32)[None])

    def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        row, column = q // block, k // block
        return (q >= k) & ((row - column < local) | ((column - h) % stride == 0))

    mask = BlockMask.from_kv_blocks(*tables, BLOCK_SIZE=block, mask_mod=rule, seq_lengths=(tokens, tokens))
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask)  # type: ignore[return-value]


def forget_compiled() -> None:
    """Before another shape is compiled: torch stops compiling a function that it has compiled for eight."""
    torch.compiler.reset()
