"""Sinks in torch's operators: a logit for every query head that stands in the softmax's sum and attends nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def put(out: Tensor, lse: Tensor, sinks: Tensor, starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Output and LSE of a softmax in whose sum exp(sinks) stands too, in the memory of those of one without: [batch,
    heads, rows, dim] and [batch, heads, rows], or packed [rows, heads, dim] and [heads, rows]. `starts` says where
    packed sequences begin: rows outside of them keep their 0 and -inf."""
    rows_of = out if out.dim() == 4 else out.transpose(0, 1)
    found, total = with_sinks(rows_of, lse, sinks[:, None])
    if starts is not None:
        row = torch.arange(len(out), device=out.device)
        is_left = (row < starts[0]) | (row >= starts[-1])
        found, total = found.masked_fill(is_left[:, None], 0.0), total.masked_fill(is_left, float("-inf"))
    rows_of.copy_(found)
    return out, lse.copy_(total)


def with_sinks(out: Tensor, lse: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """Output [..., dim] and LSE [...] of a softmax in whose sum exp(sinks) stands too; sinks broadcast against lse. The
    new LSE is of the whole sum, so that parts of which one has the sinks are combined like any others. Where a sink is
    NaN or +inf the output is NaN, as torch's softmax is."""
    sinks = sinks.to(lse.dtype)
    is_empty = lse == float("-inf")
    kept = lse.masked_fill(is_empty, 0.0)
    share = torch.sigmoid(kept - sinks).masked_fill(is_empty, 1.0)  # without keys the output is 0 already
    share = torch.where(sinks < float("inf"), share, float("nan"))
    out = (out * share[..., None]).to(out.dtype)
    return out, torch.where(is_empty, sinks, torch.logaddexp(kept, sinks))


def gradient(out: Tensor, lse: Tensor, dout: Tensor, dlse: Tensor | None, sinks: Tensor) -> Tensor:
    """The gradient of sinks [heads], from those of output and LSE, which have them: [batch, heads, rows, dim] and
    [batch, heads, rows]. Rows of no sequence count for nothing, whatever stands in the gradients of theirs."""
    weight = torch.exp(sinks.to(lse.dtype)[:, None] - lse)
    of_sum = -(out.to(lse.dtype) * dout).sum(-1)
    of_rows = weight * (of_sum if dlse is None else of_sum + dlse)
    return of_rows.masked_fill(lse == float("-inf"), 0.0).sum((0, 2)).to(sinks.dtype)
