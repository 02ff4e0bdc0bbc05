"""Recipes: the kernel launches of one call, kept so that a like call repeats them with its own tensors."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from operator import itemgetter
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..launch import boxes, descriptors, graphs

APART = 256  # bytes: what is only used meanwhile begins at multiples of it


class Recipe:
    """The launches of a call, and how the tensors that it returns are made.

    Raises LookupError where they do not follow from the call's key. All that launches are given is numbered: addresses
    of tensors given, returned and only used meanwhile, which are parts of one, and of zeros to count in; then what is
    the same for all calls; then descriptors.
    """

    def __init__(
        self,
        kept: ModuleType,
        recording: Any,
        given: tuple[Tensor | None, ...],
        made: tuple[Tensor, ...],
        options: dict[str, Any],
    ) -> None:
        self.kept, self.device, self.options = kept, made[0].device, options
        given = tuple(x for x in given if x is not None)
        self.zeros = [asked for _, *asked in recording.zeros]
        lines = [torch.empty(x.shape, device="meta").stride() for x in made]  # of memory without gaps, in order
        self.made = [
            (x.shape, None if x.stride() == line else x.stride(), x.dtype) for x, line in zip(made, lines, strict=True)
        ]
        sizes = [-(-x.nbytes // APART) * APART for x in recording.meanwhile]
        self.places = list(accumulate(sizes, initial=0))
        self.kernels = {kernel for _, kernel, *_ in recording.launches}
        numbers = Numbers(given, (*made, *recording.meanwhile), [x for x, *_ in recording.zeros])
        chosen = [numbers.chosen(kept, *launch) for launch in recording.launches]
        self.fixed, self.tables, self.descriptors = numbers.fixed, numbers.tables, list(numbers.described)
        self.launches = [(prepared, grid, itemgetter(*map(numbers.of, keys))) for prepared, grid, keys in chosen]

    def __call__(self, *given: Tensor | None) -> tuple[Tensor, ...]:
        """Launch the call again for other tensors; returns its results."""
        kept, device = self.kept, self.device
        if kept.current_device() != device.index:
            with torch.cuda.device(device):
                return self(*given)
        made = [
            torch.empty(shape, dtype=dtype, device=device)
            if strides is None
            else torch.empty_strided(shape, strides, dtype=dtype, device=device)
            for shape, strides, dtype in self.made
        ]
        values: list[Any] = [x.data_ptr() for x in given if x is not None]
        values += [x.data_ptr() for x in made]
        if len(self.places) > 1:
            room = torch.empty(self.places[-1], dtype=torch.uint8, device=device)
            begin = room.data_ptr()
            values += [begin + place for place in self.places[:-1]]
        stream, is_captured = kept.stream(device.index), graphs.is_capturing(device)
        if self.zeros:
            zeros = [graphs.zeros_at(device, stream, is_captured, *asked) for asked in self.zeros]
            values += [address for _, address in zeros]
        if is_captured:
            graphs.pin(self)
        values += self.fixed
        if self.descriptors:
            encoded = descriptors.encoded
            values += [encoded[kind, values[number]] for kind, number in self.descriptors]
        for prepared, grid, chosen in self.launches:
            prepared(grid, stream, chosen(values))
        return tuple(made)


class Numbers:
    """Numbers of all that the launches of a call are given."""

    def __init__(self, given: tuple[Tensor, ...], fresh: tuple[Tensor, ...], zeros: Iterable[Tensor]) -> None:
        own = *given, *fresh, *zeros
        self.known: dict[int, int] = {}
        for n, x in enumerate(own):  # what is given in several places is so in all calls of this key
            self.known.setdefault(id(x), n)
        if len(self.known) < len({*map(id, given)}) + len(own) - len(given):  # nor is it what is made
            raise LookupError
        self.memory = {x.untyped_storage().data_ptr() for x in own}
        self.at: dict[int, set[int]] = {}  # by address: kernels may know tensors by other shapes
        for x in (*given, *fresh):
            if x.numel():
                self.at.setdefault(x.data_ptr(), set()).add(self.known[id(x)])
        self.begin = len(own)
        self.fixed: list[Any] = []
        self.tables: list[Tensor] = []  # as long as these are here, what lies at their addresses is theirs
        self.described: dict[tuple[Any, int], int] = {}  # kind and tensor

    def chosen(
        self, kept: ModuleType, launch: Any, kernel: Any, grid: Any, tensors: Iterable[Any], numbers: tuple[float, ...]
    ) -> tuple[Any, Any, list[Any]]:
        """A launch: what Triton found for it, its grid, and for each of the kernel's arguments its number, or what a
        descriptor's follows from."""
        prepared = launch.prepared(kernel)
        if prepared is None or not kept.are_usual(numbers):
            raise LookupError
        keys: list[Any] = []
        of_boxes = iter(prepared.boxes)
        for x in tensors:
            if isinstance(x, boxes.Boxes):
                kind = descriptors.kind_of(x, next(of_boxes))
                key = kind, self._tensor(x.tensor)
                self.described.setdefault(key, len(self.described))
                keys += key, *map(self._fix, (*kind.shape, *kind.strides))
            else:
                keys.append(self._fix(None) if x is None else self._tensor(x))
        keys += map(self._fix, (*numbers, *prepared.constants))
        return prepared, grid, keys

    def of(self, key: Any) -> int:
        """The number, once there are no more things to be numbered."""
        return key if isinstance(key, int) else self.begin + len(self.fixed) + self.described[key]

    def _fix(self, value: Any) -> int:
        self.fixed.append(value)
        return self.begin + len(self.fixed) - 1

    def _tensor(self, x: Tensor) -> int:
        if not x.numel():
            return self._fix(0)  # the address of nothing
        found = self.known.get(id(x))
        if found is not None:
            return found
        there = self.at.get(x.data_ptr(), ())
        if len(there) == 1:
            [found] = there
        elif there or x.is_floating_point() or x.untyped_storage().data_ptr() in self.memory:
            raise LookupError  # of several, which? Or a copy of something given, or a part of what is numbered
        else:
            self.tables.append(x)
            found = self._fix(x.data_ptr())
        self.known[id(x)] = found
        return found
