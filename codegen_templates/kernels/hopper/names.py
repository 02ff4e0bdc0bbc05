"""Gluon's names, in the spelling of every Triton version that the Hopper kernels are tested with."""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

__all__ = [
    "BARRIER",
    "arrive",
    "barrier",
    "condition",
    "expect",
    "fence_async_shared",
    "gl",
    "gluon",
    "init_barrier",
    "load_box",
    "reinterpret",
    "wait",
    "warpgroup_mma",
    "warpgroup_mma_wait",
]


def _either(place: object, *names: str):  # type: ignore[no-untyped-def]
    """The first of the names that this version has."""
    return next(getattr(place, name) for name in names if hasattr(place, name))


BARRIER = gl.constexpr(mbarrier.MBarrierLayout())
init_barrier, expect, arrive, wait = mbarrier.init, mbarrier.expect, mbarrier.arrive, mbarrier.wait
load_box = _either(tma, "async_load", "async_copy_global_to_shared")  # 3.9, 3.6
barrier = _either(gl, "barrier", "thread_barrier")
condition = tl.condition
reinterpret = _either(gl.shared_memory_descriptor, "reinterpret", "_reinterpret")
