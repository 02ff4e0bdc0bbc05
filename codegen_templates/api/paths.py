"""Which modules compute for a tensor: those that launch kernels, on a GPU and in Triton's interpreter where that is
asked for, else the CPU path. Each is imported when it is first needed, since a process seldom needs both."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, wraps
from typing import TypeVar

import torch
from torch import Tensor

from ..pattern import NAME
from .imports import remember

T = TypeVar("T")


def forward(q: Tensor):
    """The module whose `forward` computes attention."""
    return cpu_attention() if is_on_cpu(q) else launch_forward(q.device.type)


def backward(q: Tensor):
    """The module whose `backward` computes the gradients of `forward`."""
    return cpu_attention() if is_on_cpu(q) else launch_backward(q.device.type)


def packed(q: Tensor):
    """The module whose `forward_varlen` and `forward_paged` compute attention."""
    return cpu_packed() if is_on_cpu(q) else launch_forward(q.device.type)


def packed_backward(q: Tensor):
    """The module whose `backward_varlen` computes the gradients of `forward_varlen`."""
    return cpu_packed() if is_on_cpu(q) else launch_backward(q.device.type)


def sinks(q: Tensor):
    """The module whose `put` puts sinks into an output and its LSE."""
    return cpu_sinks() if is_on_cpu(q) else launch_sinks(q.device.type)


def steps(x: Tensor):
    """The module whose kernels do a step of one token in a cache of such keys; None where torch's operators do."""
    if x.device.type != "cuda" and (x.device.type != "cpu" or os.environ.get("TRITON_INTERPRET") != "1"):
        return None
    try:
        found = launch_cache(x.device.type)
    except RuntimeError:  # without triton, operators serve as well
        return None
    return found if found.takes(x.dtype, x.device) else None


def is_on_cpu(q: Tensor) -> bool:
    """Whether the CPU path computes; TypeError for float64 where it does not."""
    is_cpu = q.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1"
    if q.dtype == torch.float64 and not is_cpu:
        raise TypeError(f"{NAME}: kernels take float32, float16, bfloat16; float64 is for gradient checks on a CPU")
    return is_cpu


@cache
def cpu_attention():
    from ..cpu import attention

    remember()
    return attention


@cache
def cpu_packed():
    from ..cpu import packed

    remember()
    return packed


@cache
def cpu_sinks():
    from ..cpu import sinks

    remember()
    return sinks


def needing_triton(load: Callable[[], T]) -> Callable[[str], T]:
    """The module that `load` imports, once, for tensors on a device of that type; RuntimeError where triton cannot be
    imported."""

    @cache
    @wraps(load)
    def loaded(device: str) -> T:
        try:
            module = load()
        except ImportError as error:
            raise RuntimeError(f"{NAME}: attention on {device} needs triton, which cannot be imported") from error
        remember()
        return module

    return loaded


@needing_triton
def launch_forward():
    from ..launch import forward

    return forward


@needing_triton
def launch_backward():
    from ..launch import backward

    return backward


@needing_triton
def launch_sinks():
    from ..launch import sinks

    return sinks


@needing_triton
def launch_cache():
    from ..launch import cache

    return cache


@needing_triton
def launch_tuned():
    from ..launch import tuned

    return tuned


@needing_triton
def launch_kept():
    from ..launch import kept

    return kept
