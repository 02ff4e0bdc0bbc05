"""Attention where some keys or values are not finite: they do not affect rows that do not keep them.

Scores that are not kept get no weight, but 0 times NaN is NaN. So keys and values that are not finite are replaced by
0, and what they are to the rows that keep them is put in afterwards. Which rows these are is asked of the same
attention: with equal weights for all keys, a row is above 0 where it keeps a key of value 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NAN, INF = float("nan"), float("inf")
Forward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]


def has_nan(*tensors: Tensor) -> bool:
    """Whether any number may be NaN; one pass over each. Infinities of both signs count, too."""
    return any(bool(x.sum().isnan()) for x in tensors)


def forward(attend: Forward, q: Tensor, k: Tensor, v: Tensor, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The result `found` of `attend(q, k, v)`, in which rows are NaN only because of keys or values that they keep.

    A row is NaN, with its LSE, where it keeps a key of which any number is not finite; and where it keeps such a value,
    what a sum with it is.
    """
    odd = ~k.isfinite().all(-1, keepdim=True)  # [batch, kv heads, keys, 1]
    odd_values = ~v.isfinite() & ~odd
    if not odd.any() and not odd_values.any():
        return found  # then it comes from q, or is too large
    out, lse = attend(q, k.masked_fill(odd, 0.0), v.masked_fill(odd | odd_values, 0.0))
    is_nan = _keeping(attend, q, k, odd.expand_as(v))
    lse = lse.masked_fill(is_nan[..., 0], NAN)
    if odd_values.any():
        above, below = (_keeping(attend, q, k, odd_values & (v == x)) for x in (INF, -INF))
        is_nan = is_nan | _keeping(attend, q, k, odd_values & v.isnan()) | (above & below)
        out = out.masked_fill(above, INF).masked_fill(below, -INF)
    return out.masked_fill(is_nan, NAN), lse


def backward(
    attend: Forward,
    differentiate: Backward,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None],
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dv of q, k, v, out, lse, dout and dlse, of which some are not finite: NaN at the rows that keep such a
    key or are such themselves, and at the keys that these rows keep."""
    q, k, v, out, lse, dout, dlse = tensors
    odd = ~(k.isfinite() & v.isfinite()).all(-1, keepdim=True)
    k, v = k.masked_fill(odd, 0.0), v.masked_fill(odd, 0.0)
    lost = lse.isnan() | (lse == INF) | ~(q.isfinite() & out.isfinite() & dout.isfinite()).all(-1)
    lost |= _keeping(attend, q, k, odd.expand_as(v))[..., 0]
    lost = (lost if dlse is None else lost | ~dlse.isfinite()) & (lse != -INF)  # [batch, heads, queries]
    q, out, dout = (x.masked_fill(lost[..., None], 0.0) for x in (q, out, dout))
    dlse = None if dlse is None else dlse.masked_fill(lost, 0.0)
    dq, dk, dv = differentiate(q, k, v, out, lse.masked_fill(lost, INF), dout, dlse)  # no weight where the sum is INF
    zeros = _zeros(q), _zeros(k), _zeros(v)
    some = lost[..., None].expand_as(out).to(zeros[0].dtype)
    _, _, keep = differentiate(*zeros, *attend(*zeros), some, None)
    kept = keep[..., :1] > 0
    return dq.masked_fill(lost[..., None], NAN), dk.masked_fill(kept, NAN), dv.masked_fill(kept, NAN)


def _keeping(attend: Forward, q: Tensor, k: Tensor, marked: Tensor) -> Tensor:
    """Which rows keep a key whose value is marked: bool like q, from bool like k."""
    if not marked.any():
        return torch.zeros((*q.shape[:-1], marked.shape[-1]), dtype=torch.bool, device="cpu")
    values = marked.to(_zeros(k).dtype)
    return attend(_zeros(q), _zeros(k), values)[0] > 0


def _zeros(x: Tensor) -> Tensor:
    """Zeros like x, in a type that can hold a weight of 1 / 2**31."""
    return torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device="cpu")
