"""Sinks: a logit for every query head that stands in the softmax's sum and attends nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks.values import check_tensors, described
from ..pattern import NAME, NEEDS_SINKS


def check_sinks(sinks: Tensor | None, q: Tensor, heads: int) -> None:
    """Check that sinks hold one number for every query head present; the pattern decides whether they must be given."""
    if sinks is None:
        if NEEDS_SINKS:
            raise TypeError(
                f"{NAME} says `sinks: learned`: pass sinks=, a tensor [{heads}] with a logit for every query head"
            )
        return
    check_tensors(sinks=sinks)
    if sinks.shape != (heads,):
        raise ValueError(f"sinks is a tensor [{heads}], a logit for every query head present; got {described(sinks)}")
    if not sinks.is_floating_point():
        raise TypeError(f"sinks is a tensor of floating-point numbers; got {described(sinks)}")
    if sinks.device != q.device:
        raise ValueError(f"sinks must be on q's device, {q.device}; it is on {sinks.device}")


def with_sinks(out: Tensor, lse: Tensor, sinks: Tensor, outside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Output [..., dim] and LSE [...] of a softmax in whose sum exp(sinks) stands too. Differentiable in all three.

    sinks broadcasts against lse. The new LSE is of the whole sum, so that parts of which one has the sinks are combined
    like any others. Rows `outside` of all sequences, which have no softmax, keep their 0 and -inf.
    """
    sinks = sinks.to(lse.dtype)
    is_empty = lse == float("-inf")
    kept = lse.masked_fill(is_empty, 0.0)
    out = (out * torch.sigmoid(kept - sinks)[..., None]).to(out.dtype)  # without keys it is 0 already
    total = torch.where(is_empty, sinks, torch.logaddexp(kept, sinks))
    return out, total if outside is None else total.masked_fill(outside, float("-inf"))


def rows_outside(starts: Tensor, rows: int) -> Tensor:
    """Which of so many packed rows are of no sequence: bool [rows]."""
    row = torch.arange(rows, device=starts.device)
    if not starts.numel():
        return torch.ones_like(row, dtype=torch.bool)
    return (row < starts[0]) | (row >= starts[-1])


def packed_sinks(out: Tensor, lse: Tensor, sinks: Tensor, starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`with_sinks` of out [rows, heads, dim] and LSE [heads, rows]; rows outside of `starts` are of no sequence."""
    outside = None if starts is None else rows_outside(starts, out.shape[0])[:, None]
    out, lse = with_sinks(out, lse.mT, sinks, outside)
    return out, lse.mT
