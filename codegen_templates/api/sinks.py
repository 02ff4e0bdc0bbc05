"""Sinks: a logit for every query head that stands in the softmax's sum and attends nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..checks.values import check_tensors, described
from ..pattern import NAME, NEEDS_SINKS
from . import paths


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


def sunk(forward: Callable[..., tuple[Tensor, Tensor]], starts: int | None = None) -> Callable[..., Any]:
    """Like `forward`, but that its last tensor is the sinks, or None. `starts`: which tensor says where packed queries
    begin; None: none is needed."""

    def compute(*given: Any, **place: Any) -> tuple[Tensor, Tensor]:
        *tensors, sinks = given
        out, lse = forward(*tensors, **place)
        if sinks is None:
            return out, lse
        return paths.sinks(out).put(out, lse, sinks, None if starts is None else tensors[starts])

    return compute
