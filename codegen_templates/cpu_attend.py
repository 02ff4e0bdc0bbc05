"""Dense attention of gathered pieces: on the CPU, what one call of the plan computes."""

from __future__ import annotations

import torch
from torch import Tensor

# torch's fused kernels, which also give the logarithm of the sum; private, so they may be missing.
FUSED = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
FUSED_BACKWARD = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


def attend(q: Tensor, k: Tensor, v: Tensor, kept: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Output [items, queries, dim] and LSE [items, queries] of q [items, queries, dim], k and v [items, keys, dim].

    `kept`, bool [items or 1, queries, keys], says which pairs attend. A query that attends nothing gives 0 and -inf.
    """
    bias = None if kept is None else _bias(kept, q.dtype)
    if FUSED is not None:
        pieces = (x[:, None] for x in (q, k, v))
        out, lse = FUSED(*pieces, 0.0, False, attn_mask=None if bias is None else bias[:, None], scale=scale)
        out, lse = out[:, 0], lse[:, 0]
    else:
        scores = _scores(q, k, bias, scale)
        lse = scores.logsumexp(-1)
        out = torch.bmm(scores.sub_(lse[..., None]).exp_().to(v.dtype), v)
    if kept is not None:
        empty = ~kept.any(-1)  # [items or 1, queries]
        if empty.any():
            out = out.masked_fill(empty[..., None], 0.0)
            lse = lse.masked_fill(empty, float("-inf"))
    return out, lse


def attend_backward(
    k: Tensor,
    v: Tensor,
    q: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    kept: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dv of this piece; `out` and `lse` are of the whole row, over all pieces."""
    lse = lse.masked_fill(lse == float("-inf"), 0.0)  # all of its scores are -inf too: their exponentials are 0
    bias = None if kept is None else _bias(kept, q.dtype)
    if FUSED_BACKWARD is not None and dlse is None:
        pieces = (x[:, None] for x in (dout, q, k, v, out, lse))
        grads = FUSED_BACKWARD(*pieces, 0.0, False, attn_mask=None if bias is None else bias[:, None], scale=scale)
        return grads[0][:, 0], grads[1][:, 0], grads[2][:, 0]
    p = _scores(q, k, bias, scale).sub_(lse[..., None]).exp_()
    delta = (out * dout).sum(-1, keepdim=True)
    if dlse is not None:
        delta -= dlse[..., None]
    ds = torch.bmm(dout, v.mT).sub_(delta).mul_(p).mul_(scale)
    return torch.bmm(ds, k), torch.bmm(ds.mT, q), torch.bmm(p.mT, dout)


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    scores = torch.bmm(q, k.mT).to(torch.promote_types(q.dtype, torch.float32)).mul_(scale)
    return scores if bias is None else scores.add_(bias)


def _bias(kept: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(kept.shape, dtype=dtype).masked_fill_(~kept, float("-inf"))
