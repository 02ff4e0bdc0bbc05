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

ZEROS, ALIKE = 256, 4  # counters of launches that are made together, and the least numbers of one
_pinned: dict[int, object] = {}
_zeros: dict[tuple[torch.device, int, int], Iterator[tuple[torch.Tensor, int]]] = {}
_NONE: Iterator[Any] = iter(())


def is_capturing(device: torch.device) -> bool:
    """Whether launches on the device's current stream go into a graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def settle(device: torch.device) -> None:
    """Wait until what was made on the device's current stream is there: launches on other streams will read it too."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def quiet(device: torch.device) -> None:
    """Wait until nothing on the device reads what is about to be freed: its memory goes back to the stream that it was
    made on, and launches on another may not have run yet."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
            settle(key[-1])
            with self._lock:
                self._found[key] = found
                is_full = self.most is not None and len(self._found) > self.most
                forgotten = self._found.popitem(last=False) if is_full else None
            if forgotten is not None:
                quiet(forgotten[0][-1])
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


def zeros(device: torch.device, count: int = 1, is_left: bool = False) -> torch.Tensor:
    """At least so many zeros, int32, for one launch to count in: nobody else gets them, so a launch that was killed, or
    one on another stream, leaves nobody its counts. is_left: whether the launch leaves zeros. Then a graph, too, takes
    those that were made before, for good, as long as there are any; else it makes its own, which each replay sets to
    zero. Launches are alike at multiples of 16 bytes, so they come in fours."""
    if device.type != "cuda":
        return torch.zeros(_size(count), dtype=torch.int32, device=device)
    stream = torch.cuda.current_stream(device).cuda_stream
    many, address = zeros_at(device, stream, is_capturing(device), count, is_left)
    return many[(address - many.data_ptr()) // many.stride(0) // many.element_size()]


def zeros_at(
    device: torch.device, stream: int, is_captured: bool, count: int = 1, is_left: bool = False
) -> tuple[torch.Tensor, int]:
    """`zeros` for a launch on this stream of a GPU, the current one: their address, and the tensor that they are in,
    which must be held until the launch."""
    key = device, stream, _size(count)
    found = None
    if not is_captured:
        found = next(_zeros.get(key, _NONE), None)
    elif is_left:
        left = (places for (of, _, size), places in list(_zeros.items()) if (of, size) == (device, key[2]))
        found = next((place for places in left for place in places), None)
        if found is not None:
            pin(found[0])
    if found is None:
        rows = 1 if is_captured else ZEROS
        many = torch.zeros(rows, key[2], dtype=torch.int32, device=device)
        first, step = many.data_ptr(), many.stride(0) * many.element_size()
        places = zip(repeat(many), range(first, first + rows * step, step))
        found = next(places)
        if not is_captured:
            _zeros[key] = places
    return found


def _size(count: int) -> int:
    return max(ALIKE, 1 << (count - 1).bit_length())
