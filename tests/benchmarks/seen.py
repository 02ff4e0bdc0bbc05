"""What launches are given, of a process on the stub of a GPU: what launchers hand to C is seen there."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
from triton.backends.nvidia.driver import CudaLauncher

GIVEN: list[tuple[Any, ...]] = []  # of each launch: grid and stream, then the kernel's arguments
made = CudaLauncher.__init__


def watched(self: CudaLauncher, *given: Any) -> None:
    """A launcher whose last step, into C, is seen: whoever takes it."""
    made(self, *given)
    count = 15 if hasattr(self, "kernel_signature") else 13  # of what stands before arguments

    def seen(last: Callable[..., object], *given: Any) -> None:
        GIVEN.append(given[:4] + tuple(given[count] if len(given) == count + 1 else given[count:]))
        last(*given)

    encodes = getattr(self.launch, "__closure__", None)  # a step before, where there are descriptors
    if encodes:
        cell = encodes[self.launch.__code__.co_freevars.index("launcher")]
        cell.cell_contents = partial(seen, cell.cell_contents)
    else:
        self.launch = partial(seen, self.launch)


def addressed(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Addresses of tensors and of descriptors' tensors, and what descriptors say beside."""
    found: list[Any] = []
    for x in given:
        if type(x).__name__ == "PyCUtensorMap":
            encoded = ctypes.string_at(id(x) + type(x).__basicsize__ - 128, 128)  # as the stub writes it
            found += int.from_bytes(encoded[:8], "little"), encoded[8:]
        else:
            found.append(x.data_ptr() if isinstance(x, torch.Tensor) else x)
    return tuple(found)


def is_tritons(given: tuple[Any, ...]) -> bool:
    """Whether Triton handed on the arguments: then pointers are tensors."""
    return any(isinstance(x, torch.Tensor) for x in given)


def calls_of(call: Callable[[], object]) -> int:
    """Functions of Python and of C that a call enters, once it has been made before."""
    for _ in range(3):
        call()
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def operators_of(call: Callable[[], object]) -> int:
    """Operators of torch that a call takes."""
    with torch.autograd.profiler.profile() as seen:
        call()
    return len(seen.function_events)


def launches(call: Callable[[], object]) -> list[tuple[Any, ...]]:
    GIVEN.clear()
    call()
    return [addressed(given) for given in GIVEN]


def differing(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> set[tuple[Any, Any]] | None:
    """Addresses of which one in the first launches stands for one in the second; None where more is different."""
    pairs = [pair for one, two in zip(first, second, strict=True) for pair in zip(one, two, strict=True)]
    others = {pair for pair in pairs if pair[0] != pair[1]}
    one_to_one = len({x for x, _ in others}) == len({y for _, y in others}) == len(others)
    are_addresses = all(type(x) is int and min(x, y) > 1 << 32 for x, y in others)
    return others if first and one_to_one and are_addresses else None


def are_alike(recipes: dict, call: Callable[[], object], other: Callable[[], object] | None = None) -> bool:
    """Whether a call that comes twice leaves a recipe, and a third launches the same; but for addresses, of which one
    stands for one."""
    before = len(recipes)
    first = launches(call)
    call()
    third = launches(other or call)
    return differing(first, third) is not None and len(recipes) == before + 1


def twice(call: Callable[..., object], *given: object, **options: object) -> None:
    """Make a call as often as it takes until it leaves a recipe."""
    call(*given, **options)
    call(*given, **options)


def are_tritons(call: Callable[[], object], *given: torch.Tensor) -> bool:
    """Whether the call launches what Triton itself does for it, but for addresses of its own memory."""
    first = launches(call)
    hook = lambda _: None  # noqa: E731
    triton.knobs.runtime.launch_enter_hook.add(hook)  # then each launch is Triton's
    second = launches(call)
    triton.knobs.runtime.launch_enter_hook.remove(hook)
    others = differing(first, second)
    return others is not None and not {x.data_ptr() for x in given} & {x for pair in others for x in pair}
