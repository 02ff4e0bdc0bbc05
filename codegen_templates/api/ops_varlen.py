"""Packed sequences of different lengths as torch operators, for training and prefills."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..checks.shapes import check_layer, check_varlen
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

PLACE = "max_seqlen_q", "max_seqlen_k", "layer", "scale", "head_offset"


def attention_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    layer: int = 0,
    scale: float | None = None,
    return_lse: bool = False,
    head_offset: int = 0,
    sinks: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention within each packed sequence: q [total_q, heads, head_dim], k and v [total_k, kv_heads, head_dim].

    Sequence n has the queries cu_seqlens_q[n] … cu_seqlens_q[n + 1] - 1 and the keys likewise, and the pattern from its
    own first token; its queries end where its keys end. cu_seqlens are int32 [sequences + 1], max_seqlen the longest
    lengths or more. Smaller ones are refused on a CPU; a GPU alone knows the lengths there, nobody waits for them, and
    what lies beyond is undefined, in the output and in gradients. The LSE is [heads, total_q]. Differentiable like
    `attention`, and the other arguments are those of it.
    """
    given = q, k, v, cu_seqlens_q, cu_seqlens_k, sinks
    key = key_of("varlen", given, scale, layer, head_offset, max_seqlen_q, max_seqlen_k)
    if (recipe := found(key)) is not None:
        out, lse = _short(recipe, recipe.options, *given) if wants_gradient(*given) else recipe(*given)
        return (out, lse) if return_lse else out
    check_tensors(q=q, k=k, v=v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
    layer, head_offset = check_layer(layer), whole("head_offset", head_offset)
    most = whole("max_seqlen_q", max_seqlen_q, 0), whole("max_seqlen_k", max_seqlen_k, 0)
    q, k, v = autocast(q, k, v)
    refuse_tangents(q, k, v, sinks)
    check_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, head_offset)
    check_sinks(sinks, q, q.shape[1])
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    scale = default_scale(scale)
    given = q, k, v, cu_seqlens_q, cu_seqlens_k, sinks
    if is_eager(*given, in_autocast=True):
        place = dict(zip(PLACE, (*most, layer, scale, head_offset), strict=True))
        compute = partial(recorded, key, sunk(paths.packed(q).forward_varlen, starts=3), place)
        out, lse = _short(compute, place, *given) if wants_gradient(*given) else compute(*given)
    else:
        out, lse = _open_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, *most, layer, scale, head_offset, sinks)
    return (out, lse) if return_lse else out


@operator("attention_varlen")
def _varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    layer: int,
    scale: float,
    head_offset: int,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    place = dict(zip(PLACE, (max_seqlen_q, max_seqlen_k, layer, scale, head_offset), strict=True))
    with torch.autocast(q.device.type, enabled=False):
        return sunk(paths.packed(q).forward_varlen, starts=3)(q, k, v, cu_seqlens_q, cu_seqlens_k, sinks, **place)


@operator("attention_varlen_backward")
def _varlen_backward(
    dout: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    layer: int,
    scale: float,
    head_offset: int,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, and the sinks' gradient, or an empty tensor."""
    tensors = q, k, v, out, lse, dout, dlse, cu_seqlens_q, cu_seqlens_k, sinks
    place = dict(zip(PLACE, (max_seqlen_q, max_seqlen_k, layer, scale, head_offset), strict=True))
    with torch.autocast(q.device.type, enabled=False):
        grads = paths.packed_backward(q).backward_varlen(*tensors, **place)
    return grads if sinks is not None else (*grads, q.new_empty(0))


@_varlen.register_fake
def _(q: Tensor, k: Tensor, *_rest: object) -> tuple[Tensor, Tensor]:
    return like_output(q), q.new_empty((q.shape[1], q.shape[0]), dtype=lse_dtype(q))


@_varlen_backward.register_fake
def _(
    dout: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    sinks = rest[-1]  # torch leaves them out where there are none
    return *grads, torch.empty_like(sinks) if isinstance(sinks, Tensor) else q.new_empty(0)


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    (q, k, v, *starts), ctx.rest, sinks = inputs[:5], inputs[5:10], inputs[10:] or (None,)
    ctx.save_for_backward(q, k, v, *output, *starts, *sinks)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, dout: Tensor | None, dlse: Tensor | None) -> tuple:
    place = dict(zip(PLACE, ctx.rest, strict=True))
    *grads, of_sinks = _gradients(ctx.saved_tensors, place, dout, dlse)
    return *grads, *[None] * len(PLACE), of_sinks


def _gradients(saved: tuple, place: dict, dout: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, *starts, sinks = saved
    dout = torch.zeros_like(out) if dout is None else dout
    grads = gradients(
        "varlen backward",
        (q, k, v, out, lse, dout, dlse, *starts, sinks),
        place,
        lambda: paths.packed_backward(q).backward_varlen,
        lambda: _open_varlen_backward(dout, dlse, q, k, v, out, lse, *starts, *place.values(), sinks),
    )
    return *grads[:3], None, None, None if sinks is None else grads[3]


_open_varlen = differentiable(_varlen, _save, _differentiate)
_open_varlen_backward = differentiable(_varlen_backward, save_nothing, refuse_second)
_short = shortly(_gradients)
