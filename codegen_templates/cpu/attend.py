"""Dense attention of gathered pieces: what one call of the CPU's plan computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..pattern import HEAD_DIM, SOFTCAP, V_HEAD_DIM

# torch's fused kernels, which also give the logarithm of the sum; private, so they may be missing.
# Their causal mask is multiplied by the scale: it must be positive.
FUSED = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
IS_KNOWN = not SOFTCAP and V_HEAD_DIM == HEAD_DIM  # whether they compute such scores, of values as wide as keys
FUSED_BACKWARD = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


def is_fused() -> bool:
    """Whether torch's fused attention kernel is available and computes these scores."""
    return FUSED is not None and IS_KNOWN


@dataclass(frozen=True)
class Mask:
    """Which pairs attend: 0 or -inf to add to scores [items or 1, 1, queries, keys], and queries without any key."""

    bias: Tensor
    empty: Tensor | None  # bool [items or 1, 1, queries]; None: every query has a key

    @staticmethod
    def of(kept: Tensor, dtype: torch.dtype) -> Mask:
        """The mask of bool [items or 1, queries, keys]."""
        kept = kept[:, None]
        empty = ~kept.any(-1)
        bias = torch.zeros(kept.shape, dtype=dtype, device=kept.device).masked_fill_(~kept, float("-inf"))
        return Mask(bias, empty if empty.any() else None)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Output, as wide as v, and LSE [items, heads, queries] of q [items, heads, queries, dim], k and v [items, heads,
    keys, their width]. A query without any key gives 0 and -inf. If causal, query n attends keys 0..n only."""
    bias = None if mask is None else mask.bias
    if is_fused() and q.device.type == "cpu" and (scale > 0 or not causal):
        out, lse = FUSED(q, k, v, 0.0, causal, attn_mask=bias, scale=scale)
    else:
        scores = _scores(q, k, bias, scale, causal)
        lse = scores.logsumexp(-1)
        out = torch.matmul(scores.sub_(lse[..., None]).exp_().to(v.dtype), v)
    if mask is not None and mask.empty is not None:
        out = out.masked_fill(mask.empty[..., None], 0.0)
        lse = lse.masked_fill(mask.empty, float("-inf"))
    return out, lse


def attend_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    mask: Mask | None,
    scale: float,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dv of this piece. `out` and `lse` are of whole rows, over all pieces."""
    lse = lse.masked_fill(lse == float("-inf"), 0.0)  # of a row without keys: its scores are -inf too
    bias = None if mask is None else mask.bias
    if FUSED_BACKWARD is not None and IS_KNOWN and dlse is None and (scale > 0 or not causal):
        return FUSED_BACKWARD(dout, q, k, v, out, lse, 0.0, causal, attn_mask=bias, scale=scale)
    scores = _scores(q, k, bias, scale, causal)
    slope = 1 - (scores / SOFTCAP).clamp_(min=-1.0).square_() if SOFTCAP else None  # where nothing is kept: 0
    p = scores.sub_(lse[..., None]).exp_()
    delta = (out * dout).sum(-1, keepdim=True)
    if dlse is not None:
        delta -= dlse[..., None]
    ds = torch.matmul(dout, v.mT).sub_(delta).mul_(p).mul_(scale)
    if slope is not None:
        ds.mul_(slope)
    return torch.matmul(ds, k), torch.matmul(ds.mT, q), torch.matmul(p.mT, dout)


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, scale: float, causal: bool) -> Tensor:
    scores = _products(q, k).mul_(scale)
    if SOFTCAP:
        scores.div_(SOFTCAP).tanh_().mul_(SOFTCAP)
    if causal:
        scores.masked_fill_(torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu_(1), float("-inf"))
    return scores if bias is None else scores.add_(bias)


def _products(q: Tensor, k: Tensor) -> Tensor:
    """q times k transposed, of half precision in fp32: a score of 30 that is rounded to bfloat16 is off by up to 0.06.

    On an NVIDIA GPU the sums are written as they are, and no key is copied; on the CPU copies are multiplied. Others
    round: torch has no such product for them.
    """
    exact = torch.promote_types(q.dtype, torch.float32)
    if q.dtype != exact and _writes_sums(q.device):
        lead = q.shape[:-2]
        if lead != k.shape[:-2]:
            lead = torch.broadcast_shapes(lead, k.shape[:-2])
            q, k = (x.expand(*lead, *x.shape[-2:]) for x in (q, k))
        rows = [x.flatten(0, -3) for x in (q, k)]
        return torch.bmm(rows[0], rows[1].mT, out_dtype=exact).unflatten(0, lead)
    if q.device.type == "cpu":
        q, k = q.to(exact), k.to(exact)
    return torch.matmul(q, k.mT).to(exact)


def _writes_sums(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None
