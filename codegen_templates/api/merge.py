"""Attention over parts of the keys, merged into attention over all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks.shapes import check_parts
from ..checks.values import described


def combine(
    outs: Sequence[Tensor] | Tensor, lses: Sequence[Tensor] | Tensor, *, packed: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Output and LSE of attention over all keys, from those over disjoint parts of the keys.

    outs: of each part [..., dim]; lses: of each part [...], natural logarithms. Differentiable in both. A part without
    keys, with an LSE of -inf, adds nothing, whatever its output holds; without any keys the result is 0 and -inf.
    `packed`: the LSEs are as attention_varlen, attention_paged and decode give them, with heads before queries, and so
    is the result's. It must be given, True or False, for packed outputs [n, n, dim], whose shape does not tell one from
    the other.
    """
    if any(not isinstance(parts, Tensor | Sequence) or isinstance(parts, str) for parts in (outs, lses)):
        raise TypeError(
            f"combine takes the outputs and the LSEs of all parts; got {described(outs)} and {described(lses)}"
        )
    outs, lses = list(outs), list(lses)
    check_parts(outs, lses, packed)
    turned = bool(packed) and outs[0].dim() > 2
    lses = torch.stack(lses).transpose(-1, -2) if turned else torch.stack(lses)
    has_none = lses == float("-inf")  # [parts, ...]
    largest = lses.detach().amax(0)
    base = largest.masked_fill(largest == float("-inf"), 0.0)
    weights = torch.exp((lses - base).masked_fill(lses == float("inf"), 0.0))  # infinitely much, each as much
    total = weights.sum(0)
    is_empty = total == 0
    share = weights / total.masked_fill(is_empty, 1.0)
    kept = (part.masked_fill(none[..., None], 0.0) for part, none in zip(outs, has_none, strict=True))
    out = sum(part.to(share.dtype) * weight[..., None] for part, weight in zip(kept, share, strict=True))
    lse = (base + total.masked_fill(is_empty, 1.0).log()).masked_fill(is_empty, float("-inf"))
    return out.to(outs[0].dtype), lse.transpose(-1, -2) if turned else lse
