"""A forward and a backward pass of the emulated Hopper kernels against the reference."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from patterncc import reference
from tests.gluon import hopper, test_backward, test_forward
from tests.kernels.held import Held, gradients, off, tensors, weights


def emulated(of: Held, inputs: Any, through: Any, **order: int) -> dict[str, Tensor]:
    """Output, LSE and gradients by the emulated kernels: dq, dk and dv come from the reference's output and LSE."""
    root = of.package.__name__
    forward, backward = (importlib.import_module(f"{root}.launch.{file}") for file in ("hopper", "hopper_backward"))
    q, k, _ = inputs
    start = k.shape[2] - q.shape[2]
    out, lse = test_forward.attend(of, forward, hopper.kernel_of(forward), *inputs, **order)
    kernels = tuple(hopper.kernel_of(backward, name=name) for name in test_backward.NAMES)
    sums = test_backward.sums_of(*reference.attention(of.pattern, *inputs), *through)
    grads = test_backward.differentiate(backward, kernels, (*inputs, through[0]), sums, (start, 0), **order)
    return {"out": out, "lse": lse} | dict(zip(("dq", "dk", "dv"), grads, strict=True))


def check(of: Held, q_len: int, kv_len: int, batch: int = 1, error: float = 3e-6, **order: int) -> None:
    """The emulated kernels against the reference in fp64: `error` is by norm, relative; the default is for float32 sums
    of some hundreds of products, in another order."""
    inputs = tensors(of.pattern, q_len, kv_len, batch=batch)
    through = weights(inputs[0], inputs[0].shape[:3])
    found = emulated(of, inputs, through, **order)

    def attend(*inputs: Tensor) -> Any:
        return reference.attention(of.pattern, *inputs)

    true = dict(zip(("out", "lse"), attend(*inputs), strict=True))
    true |= dict(zip(("dq", "dk", "dv"), gradients(attend, [x.double() for x in inputs], *through), strict=True))
    errors = {name: off(found[name], true[name]) for name in true}
    assert max(errors.values()) < error, errors
