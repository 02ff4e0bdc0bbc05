"""Code that all operators share: it makes them, decides when a call may skip them, and refuses derivatives that they do
not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch.autograd import forward_ad

from ..checks.values import number
from ..pattern import HEAD_DIM, NAME, SCALE
from .flops import counted, register
from .imports import operator_name

PLAIN = (Tensor, torch.nn.Parameter)
_usual = [torch._C.DispatchKeySet(key).raw_repr() for key in (DispatchKey.BackendSelect, DispatchKey.ADInplaceOrView)]
USUAL = (_usual[0], _usual[0] | _usual[1])  # what torch's dispatcher includes in inference mode, and else


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether an operator would only compute: eagerly, without a gradient, for plain tensors."""
    return not wants_gradient(*tensors) and is_eager(*tensors)


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd is to know of what is made of them."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def is_eager(first: Tensor, *others: Tensor | None, in_autocast: bool = False) -> bool:
    """Whether nobody is there who would have to see an operator: plain tensors, no mode, no transformation, no tracer.
    Then there is a shorter way, since being an operator takes longer than the launch. Under autocast there is none,
    but for tensors that have its dtype, and kernels."""
    if torch.compiler.is_compiling() or torch._C._is_torch_function_mode_enabled():
        return False
    if torch._C._dispatch_tls_local_include_set().raw_repr() not in USUAL:
        return False
    if type(first) not in PLAIN or first.is_neg():
        return False
    for x in others:
        if x is not None and (type(x) not in PLAIN or x.is_neg()):
            return False
    device = first.device.type
    if device == "meta":  # nothing is computed there, only shapes are
        return False
    return (in_autocast and device == "cuda") or not torch.is_autocast_enabled(device)


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype of torch.autocast, where that is on."""
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def refuse_tangents(*tensors: Tensor | None) -> None:
    """Forward-mode differentiation, which an operator would pass over in silence."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        _refuse_forward_mode()


def _refuse_forward_mode(*_tangents: object) -> None:
    raise NotImplementedError(f"{NAME}: attention has no forward-mode derivative; use torch.autograd.grad or vjp")


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Make a function an operator of torch."""
    full = operator_name(name)
    counted(full, name)
    return torch.library.custom_op(full, mutates_args=())


def differentiable(operator: Callable[..., Any], save: Callable[..., None], backward: Callable[..., Any]) -> Any:
    """The operator, with its derivative: what its place in autograd is made from. torch.func's transformations do not
    open what torch makes from it, so there the same goes through a Function that is open to them."""
    operator.register_autograd(backward, setup_context=save)  # type: ignore[attr-defined]

    class Open(torch.autograd.Function):
        generate_vmap_rule = True
        forward = staticmethod(lambda *inputs: operator(*inputs))
        setup_context = staticmethod(save)
        jvp = staticmethod(_refuse_forward_mode)

    Open.backward = staticmethod(backward)  # type: ignore[method-assign]

    def call(*inputs: object) -> Any:
        if not torch.compiler.is_compiling():
            register()
        is_open = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
        return Open.apply(*inputs) if is_open else operator(*inputs)

    return call


def shortly(gradients: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """A function (compute, place, *tensors) that returns output and LSE as `compute` makes them from the tensors, and
    has a derivative without being an operator of torch: for calls that `is_eager` is true of. `gradients` is given what
    is saved, `place`, and the gradients of output and LSE; it returns a gradient for each of the tensors, or None."""

    class Short(torch.autograd.Function):
        @staticmethod
        def forward(ctx, compute, place, *tensors):  # type: ignore[no-untyped-def]
            out, lse = compute(*tensors)
            ctx.save_for_backward(*tensors[:3], out, lse, *tensors[3:])
            ctx.place = place
            ctx.set_materialize_grads(False)
            return out, lse

        @staticmethod
        def backward(ctx, dout, dlse):  # type: ignore[no-untyped-def]
            return None, None, *gradients(ctx.saved_tensors, ctx.place, dout, dlse)

    return Short.apply


def save_nothing(ctx: object, inputs: tuple, output: object) -> None:
    """For a derivative that is refused."""


def default_scale(scale: float | None) -> float:
    """The call's scale, else the pattern's, else head_dim ** -0.5; raises TypeError for what is no number."""
    return _own_scale() if scale is None else number("scale", scale)


def _own_scale() -> float:
    return SCALE or HEAD_DIM**-0.5


# Else torch.compile makes a graph for each value it thinks this could have. `torch.compiler.assume_constant_result`
# does the same, but imports torch's compiler first, which takes as long as torch itself.
_own_scale._dynamo_marked_constant = True  # type: ignore[attr-defined]


def lse_dtype(q: Tensor) -> torch.dtype:
    return torch.promote_types(q.dtype, torch.float32)


def refuse_second(ctx: object, *_grads: Tensor) -> tuple[Tensor, ...]:
    """The gradient of a gradient."""
    raise NotImplementedError(f"{NAME}: attention has no second derivative; do not differentiate its gradient")


def refuse_first(ctx: object, *_grads: Tensor) -> tuple[Tensor, ...]:
    """The gradient of what serves, and does not train."""
    raise NotImplementedError(f"{NAME}: paged attention has no gradient; use attention or attention_varlen")
