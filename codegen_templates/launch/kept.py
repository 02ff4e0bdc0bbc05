"""Launches of what was launched before, without all that Triton does for a launch.

Triton finds the binary for a launch by looking at each argument, which takes longer than a small kernel runs. Which one
it is depends on the constants, the types of pointers, whether addresses are multiples of 16, whether whole numbers have
32 bits, and the device: no kernel here specialises a number. So what the first such launch has found is kept, and later
ones hand it addresses and numbers. Where anything is different, and with versions of Triton that this was not tried
with, every launch is Triton's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import torch
import triton
from triton.compiler import CompiledKernel
from triton.runtime import driver

from ..checks.values import MOST_TOKENS
from ..pattern import NAME
from . import graphs
from .boxes import Boxes
from .descriptors import Box, as_box, encoded, kind_of

TRIED = ("3.6.", "3.9.")  # versions of Triton: how a compiled kernel is run is nothing that it promises
IS_TRIED = triton.__version__.startswith(TRIED) and torch.version.hip is None
MOST_PROGRAMS = (1 << 31) - 1  # of a launch: Triton multiplies the grid in 32 bits, and launches nothing beyond
current_device = torch.cuda.current_device
Numbers = tuple[float, ...]
RUNTIME = triton.knobs.runtime


class Prepared:
    """A compiled kernel with its constants: all that a launch needs beside grid, stream and arguments."""

    def __init__(self, compiled: CompiledKernel, constants: tuple[Any, ...], boxes: tuple[Box, ...]) -> None:
        of, packed = compiled.run, compiled.packed_metadata
        self.run, self.boxes = _taking_encoded(of.launch), boxes
        before = compiled.function, of.launch_cooperative_grid, of.launch_pdl
        no_hooks, no_memory = (None, None, None), (None, None)  # the first: metadata for hooks, and two of them
        if hasattr(of, "kernel_signature"):  # since Triton 3.7 there is one launcher for all kernels
            self.head = *before, packed, *no_hooks, *no_memory, of.arg_annotations, of.kernel_signature
        else:
            self.head = *before, *no_memory, packed, *no_hooks
        self.constants, self.are_packed = constants, hasattr(of, "kernel_signature")

    @staticmethod
    def of(compiled: Any, constants: tuple[Any, ...], described: int) -> Prepared | None:
        """None where Triton has more to do for each launch: it allocates memory, watches, or takes as many descriptors
        in another way."""
        if not isinstance(compiled, CompiledKernel) or not hasattr(compiled.run, "launch"):
            return None
        of = compiled.run
        is_simple = not (of.global_scratch_size or of.profile_scratch_size or getattr(of, "gsan_enabled", False))
        boxes = tuple(map(as_box, getattr(compiled.metadata, "tensordesc_meta", None) or ()))
        return Prepared(compiled, constants, boxes) if is_simple and len(boxes) == described else None

    def __call__(self, grid: tuple[int, int, int], stream: int, arguments: tuple[Any, ...]) -> None:
        """Launch with these arguments, constants and all. A descriptor is encoded, with its shape and strides after
        it."""
        if self.are_packed:
            self.run(*grid, stream, *self.head, arguments)
        else:
            self.run(*grid, stream, *self.head, *arguments)

    def given(self, tensors: Iterable[Any]) -> list[Any]:
        """The arguments for tensors, None and `Boxes`."""
        found: list[Any] = []
        boxes = iter(self.boxes)
        for x in tensors:
            if isinstance(x, Boxes):
                kind = kind_of(x, next(boxes))
                found += encoded[kind, x.data_ptr()], *kind.shape, *kind.strides
            else:
                found.append(None if x is None else x.data_ptr())
        return found


def _taking_encoded(launch: Any) -> Any:
    """The function behind Triton's launcher that takes encoded descriptors; `launch` itself where it has none."""
    names = launch.__code__.co_freevars if hasattr(launch, "__code__") else ()
    return launch.__closure__[names.index("launcher")].cell_contents if "launcher" in names else launch


class Launch:
    """One kernel with its constants and its types of pointers, on one device. anywhere: the tensor, by its place, whose
    address the kernel does not specialise, which may be no multiple of 16."""

    def __init__(self, device: torch.device, *, anywhere: int | None = None, **constants: Any) -> None:
        self.device, self.constants, self.anywhere = device, constants, anywhere
        self._kept: tuple[Any, Prepared] | None = None  # the kernel, and what Triton found for it

    def __call__(self, kernel: Any, grid: tuple[int, int, int], tensors: tuple[Any, ...], numbers: Numbers) -> None:
        """Launch on the device's current stream: arguments in the kernel's order, first tensors, None or `Boxes` of
        them, then numbers."""
        if self.device.type != "cuda":
            kernel[grid](*tensors, *numbers, **self.constants)
            return
        if current_device() != self.device.index:
            with torch.cuda.device(self.device):
                return self(kernel, grid, tensors, numbers)
        x, y, z = grid
        if x * y * z > MOST_PROGRAMS:
            raise ValueError(
                f"{NAME}: {x} x {y} x {z} programs in one launch, and Triton counts {MOST_PROGRAMS:,} at most: "
                "give fewer sequences in one call, or shorter ones"
            )
        if (recording := _here.recording) is not None:
            recording.launches.append((self, kernel, grid, tensors, numbers))
        joined = 0
        for x in tensors if self.anywhere is None else tensors[: self.anywhere] + tensors[self.anywhere + 1 :]:
            if x is not None:
                joined |= x.data_ptr()
        is_usual = not joined & 15 and are_usual(numbers)
        if is_usual and (prepared := self.prepared(kernel)) and not are_watched((kernel,)):
            given = prepared.given(tensors)
            prepared(grid, stream(self.device.index), (*given, *numbers, *prepared.constants))
            return
        given = [x.descriptor() if isinstance(x, Boxes) else x for x in tensors]
        hashed(kernel, set())
        compiled = kernel[grid](*given, *numbers, **self.constants)
        if IS_TRIED and is_usual:
            names = kernel.arg_names[len(tensors) + len(numbers) :]
            described = sum(isinstance(x, Boxes) for x in tensors)
            found = Prepared.of(compiled, tuple(self.constants[name] for name in names), described)
            self._kept = found and (kernel, found)

    def prepared(self, kernel: Any) -> Prepared | None:
        """What an earlier launch of this kernel has found; None where each one is Triton's own."""
        return self._kept[1] if self._kept and self._kept[0] is kernel else None


def hashed(function: Any, seen: set[int]) -> None:
    """Have Triton hash a kernel, once it has hashed all that the kernel calls, but for the functions that are `seen`.
    Triton 3.6 takes the constants of a called function into the hash only if it has hashed that one before: then what
    one process has compiled is not found by another, which launches in another order."""
    if getattr(function, "hash", "") is None and id(function) not in seen:
        seen.add(id(function))
        for name in function.fn.__code__.co_names:
            hashed(function.fn.__globals__.get(name), seen)
        _ = function.cache_key


class Recording:
    """While it is open: what this thread launches, and the tensors that are only used meanwhile."""

    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []
        self.meanwhile: list[torch.Tensor] = []
        self.zeros: list[tuple[torch.Tensor, int, bool]] = []  # of `graphs.zeros`, and what was asked for
        self.is_whole = False  # nothing else was done on the device

    def __enter__(self) -> Recording:
        _here.recording = self
        return self

    def __exit__(self, *_: object) -> None:
        _here.recording = None


class _Here(threading.local):
    recording: Recording | None = None


_here = _Here()


def only_meanwhile(*tensors: torch.Tensor) -> None:
    """State that these are made for this call alone, and are none of its results."""
    if (recording := _here.recording) is not None:
        recording.meanwhile.extend(tensors)


def zeros(device: torch.device, count: int = 1, is_left: bool = False) -> torch.Tensor:
    """`graphs.zeros`, made again with each call."""
    found = graphs.zeros(device, count, is_left)
    if (recording := _here.recording) is not None:
        recording.zeros.append((found, count, is_left))
    return found


def that_was_all() -> None:
    """State that this call made tensors and launched kernels through `Launch`, and did nothing else on the device."""
    if (recording := _here.recording) is not None:
        recording.is_whole = True


def are_usual(numbers: Numbers) -> bool:
    """Whether all of them have 32 bits: types of arguments depend on it."""
    return max(numbers) <= MOST_TOKENS


def are_watched(kernels: Iterable[Any]) -> bool:
    """Whether someone wants to be told of launches, of all or of these kernels'."""
    # profilers are told more of a launch than is known here
    for hook in (RUNTIME.launch_enter_hook, RUNTIME.launch_exit_hook):
        if hook is not None and getattr(hook, "calls", True):
            return True
    return any(kernel.pre_run_hooks for kernel in kernels)


def stream(device: int) -> int:
    """The current one of the device."""
    return driver.active.get_current_stream(device)
