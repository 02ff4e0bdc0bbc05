"""What a captured CUDA graph reads lasts as long as the package.

A graph holds addresses. Inputs, outputs and what is only used meanwhile are its own: whoever captures keeps the first,
and torch keeps the others in the graph's pool. Tables are neither, and the caches that they come from forget. So what
a cache gives while a graph is captured is pinned, and never freed. Nothing can be made then, since that copies from
the host: who captures a call makes it once before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import update_wrapper
from itertools import repeat
from typing import Any

import torch

from ..pattern import NAME

ZEROS, ALIKE = 256, 4  # that are made together, each with so many numbers
_pinned: dict[int, object] = {}
_zeros: dict[tuple[torch.device, int], Iterator[tuple[torch.Tensor, int]]] = {}
_NONE: Iterator[Any] = iter(())


def is_capturing(device: torch.device) -> bool:
    """Whether launches on the device's current stream go into a graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def pin(x: object) -> None:
    """Keep what a graph reads, for good."""
    _pinned[id(x)] = x


class Tables:
    """A function of hashable arguments, the last of them a device, whose results are kept: the `most` used last.

    Raises RuntimeError where a graph is captured and the result is not there yet.
    """

    def __init__(self, make: Callable[..., Any], most: int | None) -> None:
        self.make, self.most = make, most
        self._found: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()
        update_wrapper(self, make)

    def __call__(self, *key: Any) -> Any:
        is_captured = is_capturing(key[-1])
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
        if found is None:
            if is_captured:
                raise RuntimeError(
                    f"{NAME}: a call of these lengths makes tables, which no graph can capture: make it once before"
                )
            found = self.make(*key)
            with self._lock:
                self._found[key] = found
                if self.most is not None and len(self._found) > self.most:
                    self._found.popitem(last=False)
        if is_captured:
            pin(found)
        return found

    def __len__(self) -> int:
        return len(self._found)

    def cache_clear(self) -> None:
        """Forget all that is not pinned."""
        with self._lock:
            self._found.clear()


def tables(most: int | None = None) -> Callable[[Callable[..., Any]], Tables]:
    """Make a function one that keeps its results: all, or the `most` used last."""
    return lambda make: Tables(make, most)


def zero(device: torch.device) -> torch.Tensor:
    """A zero for one launch to count in, the first of int32 [4], since launches are alike at multiples of 16 bytes:
    nobody else gets it, so a launch that was killed, or one on another stream, leaves nobody its count. A graph makes
    its own, which each replay sets to zero."""
    if device.type != "cuda":
        return torch.zeros(ALIKE, dtype=torch.int32, device=device)
    many, address = zero_at(device, torch.cuda.current_stream(device).cuda_stream, is_capturing(device))
    return many[(address - many.data_ptr()) // many.stride(0) // many.element_size()]


def zero_at(device: torch.device, stream: int, is_captured: bool) -> tuple[torch.Tensor, int]:
    """`zero` for a launch on this stream of a GPU, the current one: its address, and the tensor that it is in, which
    must be held until the launch."""
    found = None if is_captured else next(_zeros.get((device, stream), _NONE), None)
    if found is None:
        count = 1 if is_captured else ZEROS
        many = torch.zeros(count, ALIKE, dtype=torch.int32, device=device)
        first, step = many.data_ptr(), many.stride(0) * many.element_size()
        places = zip(repeat(many), range(first, first + count * step, step))
        found = next(places)
        if not is_captured:
            _zeros[device, stream] = places
    return found
