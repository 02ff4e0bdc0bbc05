"""Launches of what was launched before, without all that Triton does for a launch.

Triton finds the binary for a launch by looking at each argument, which takes longer than a small kernel runs. Which one
it is depends on the constants, the types of pointers, whether addresses are multiples of 16, whether whole numbers have
32 bits, and the device: no kernel here specialises a number. So what the first such launch has found is kept, and later
ones hand it addresses and numbers. Where anything is different, and with versions of Triton that this was not tried
with, every launch is Triton's own.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
import triton
from triton.compiler import CompiledKernel
from triton.runtime import driver

from ..checks.values import MOST_TOKENS

TRIED = ("3.6.", "3.9.")  # versions of Triton: how a compiled kernel is run is nothing that it promises
IS_TRIED = triton.__version__.startswith(TRIED) and torch.version.hip is None
HOOKS = ("launch_enter_hook", "launch_exit_hook")  # of profilers, which are told more than is known here


class Launch:
    """One kernel with its constants and its types of pointers, on one device."""

    def __init__(self, device: torch.device, **constants: Any) -> None:
        self.device, self.constants = device, constants
        self._kept: tuple[Any, ...] | None = None  # the kernel, what it was compiled to, its constants in order

    def __call__(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        tensors: tuple[torch.Tensor | None, ...],
        numbers: tuple[float, ...],
    ) -> None:
        """Launch on the device's current stream: arguments in the kernel's order, first tensors, then numbers."""
        if self.device.type != "cuda":
            kernel[grid](*tensors, *numbers, **self.constants)
            return
        if torch.cuda.current_device() != self.device.index:
            with torch.cuda.device(self.device):
                return self(kernel, grid, tensors, numbers)
        if (recording := _here.recording) is not None:
            recording.launches.append((self, kernel, grid, tensors, numbers))
        addresses: list[int | None] = []
        joined = 0
        for x in tensors:
            address = None if x is None else x.data_ptr()
            joined |= address or 0
            addresses.append(address)
        is_usual = not joined & 15 and max(numbers) <= MOST_TOKENS
        if self._kept and is_usual and self._kept[0] is kernel and not is_watched(kernel):
            _, compiled, run, constants = self._kept
            stream = driver.active.get_current_stream(self.device.index)
            given = *addresses, *numbers, *constants
            run(*grid, stream, compiled.function, compiled.packed_metadata, None, None, None, *given)
            return
        compiled = kernel[grid](*tensors, *numbers, **self.constants)
        if IS_TRIED and is_usual and isinstance(compiled, CompiledKernel):
            names = kernel.arg_names[len(tensors) + len(numbers) :]
            self._kept = kernel, compiled, compiled.run, tuple(self.constants[name] for name in names)


class Recording:
    """While it is open: what this thread launches, and the tensors that are only used meanwhile."""

    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []
        self.meanwhile: list[torch.Tensor] = []

    def __enter__(self) -> None:
        _here.recording = self

    def __exit__(self, *_: object) -> None:
        _here.recording = None


class _Here(threading.local):
    recording: Recording | None = None


_here = _Here()


def only_meanwhile(*tensors: torch.Tensor) -> None:
    """Say that these are made for this call alone, and are none of its results."""
    if (recording := _here.recording) is not None:
        recording.meanwhile.extend(tensors)


def is_watched(kernel: Any) -> bool:
    """Whether someone wants to be told of launches."""
    runtime = triton.knobs.runtime
    for name in HOOKS:
        hook = getattr(runtime, name)
        if hook is not None and getattr(hook, "calls", True):
            return True
    return bool(kernel.pre_run_hooks)
