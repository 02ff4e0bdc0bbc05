"""Attention as torch operators: checks, kernels or CPU path, gradients, shapes for the compiler."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..checks.shapes import check_attention, check_layer
from ..checks.values import check_tensors, whole
from ..launch.outputs import like_output
from . import paths
from .again import found, gradients, key_of, recorded
from .dispatch import (
    autocast,
    default_scale,
    differentiable,
    is_eager,
    lse_dtype,
    operator,
    refuse_second,
    refuse_tangents,
    save_nothing,
    shortly,
    wants_gradient,
)
from .sinks import check_sinks, sunk

PLACE = "layer", "scale", "head_offset", "q_start", "kv_start"


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    layer: int = 0,
    scale: float | None = None,
    return_lse: bool = False,
    head_offset: int = 0,
    q_start: int | None = None,
    kv_start: int = 0,
    sinks: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of q [batch, heads, q_len, head_dim] over k and v [batch, kv_heads, kv_len, head_dim]: like q.

    Where the pattern says `v_head_dim`, v and the output have that width.

    With `return_lse` also the logarithms of the softmax sums, [batch, heads, q_len], fp32; fp64 where q, k and v are,
    as they may be on a CPU, to check gradients. Both are differentiable. A query that keeps no key gives 0 and -inf.
    `scale` is the pattern's, or head_dim**-0.5, unless given. `head_offset` is the first of the pattern's query heads
    that is present in q. The keys stand at positions kv_start, kv_start + 1, … (a multiple of the block, 0 or more) and
    the queries at q_start, q_start + 1, …, by default so that both end together. Under autocast q, k and v are cast to
    its dtype.
    With `sinks` [heads], a logit for every query head present, exp(sinks) stands in the softmax's sum too, and so in
    the LSE: of parts that are combined, one is given the sinks and the others sinks of -inf. Differentiable; a pattern
    that says `sinks: learned` requires them.
    """
    given = q, k, v, sinks
    key = key_of("attention", given, scale, layer, head_offset, q_start, kv_start)
    if (recipe := found(key)) is not None:
        out, lse = _short(recipe, recipe.options, *given) if wants_gradient(*given) else recipe(*given)
        return (out, lse) if return_lse else out
    check_tensors(q=q, k=k, v=v)
    layer, head_offset, kv_start = check_layer(layer), whole("head_offset", head_offset), whole("kv_start", kv_start, 0)
    q, k, v = autocast(q, k, v)
    refuse_tangents(q, k, v, sinks)
    check_attention(q, k, v, head_offset, kv_start)
    check_sinks(sinks, q, q.shape[1])
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    scale = default_scale(scale)
    q_start = kv_start + k.shape[2] - q.shape[2] if q_start is None else whole("q_start", q_start)
    given = q, k, v, sinks
    if is_eager(*given, in_autocast=True):
        place = {"layer": layer, "scale": scale, "head_offset": head_offset, "q_start": q_start, "kv_start": kv_start}
        compute = partial(recorded, key, sunk(paths.forward(q).forward), place)
        out, lse = _short(compute, place, *given) if wants_gradient(*given) else compute(*given)
    else:
        out, lse = _open_forward(q, k, v, layer, scale, head_offset, q_start, kv_start, sinks)
    return (out, lse) if return_lse else out


@operator("attention")
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layer: int,
    scale: float,
    head_offset: int,
    q_start: int,
    kv_start: int,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    place = {"layer": layer, "scale": scale, "head_offset": head_offset, "q_start": q_start, "kv_start": kv_start}
    with torch.autocast(q.device.type, enabled=False):
        return sunk(paths.forward(q).forward)(q, k, v, sinks, **place)


@operator("attention_backward")
def _backward(
    dout: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    layer: int,
    scale: float,
    head_offset: int,
    q_start: int,
    kv_start: int,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, and the sinks' gradient, or an empty tensor."""
    place = {"layer": layer, "scale": scale, "head_offset": head_offset, "q_start": q_start, "kv_start": kv_start}
    with torch.autocast(q.device.type, enabled=False):
        grads = paths.backward(q).backward(q, k, v, out, lse, dout, dlse, sinks, **place)
    return grads if sinks is not None else (*grads, q.new_empty(0))


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_place: object) -> tuple[Tensor, Tensor]:
    return like_output(q), q.new_empty(q.shape[:3], dtype=lse_dtype(q))


@_backward.register_fake
def _(
    dout: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    sinks = rest[-1]  # torch leaves them out where there are none
    return *grads, torch.empty_like(sinks) if isinstance(sinks, Tensor) else q.new_empty(0)


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    (q, k, v), ctx.place, sinks = inputs[:3], inputs[3:8], inputs[8:] or (None,)
    ctx.save_for_backward(q, k, v, *output, *sinks)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, dout: Tensor | None, dlse: Tensor | None) -> tuple:
    place = dict(zip(PLACE, ctx.place, strict=True))
    *grads, of_sinks = _gradients(ctx.saved_tensors, place, dout, dlse)
    return *grads, *[None] * len(PLACE), of_sinks


def _gradients(saved: tuple, place: dict, dout: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, sinks = saved
    dout = torch.zeros_like(out) if dout is None else dout
    grads = gradients(
        "backward",
        (q, k, v, out, lse, dout, dlse, sinks),
        place,
        lambda: paths.backward(q).backward,
        lambda: _open_backward(dout, dlse, q, k, v, out, lse, *place.values(), sinks),
    )
    return *grads[:3], None if sinks is None else grads[3]


_open_forward = differentiable(_forward, _save, _differentiate)
_open_backward = differentiable(_backward, save_nothing, refuse_second)
_short = shortly(_gradients)
