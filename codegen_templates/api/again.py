"""Calls like one before: what that one launched on a GPU is launched again, for other tensors of the same shapes.

All that is looked at before a launch, and all that is worked out for it, follows from shapes, strides, dtypes, devices
and numbers, from what was tuned and from the environment. Where these are the same, only memory is another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import accumulate
from operator import itemgetter
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..launch import boxes, graphs
from ..pattern import FORM
from . import paths
from .dispatch import is_eager

MOST = 512 if FORM == "closed" else 16  # kinds of calls that are kept: a recipe holds its tables
APART = 256  # bytes: what is only used meanwhile begins at multiples of it
_recipes: dict[Any, Recipe] = {}


class Recipe:
    """The launches of a call, and how the tensors that it returns are made.

    Its tensors are numbered: those given, those returned, those only used meanwhile, which are parts of one, zeros to
    count in, and what is the same for all calls.
    """

    def __init__(
        self,
        kept: ModuleType,
        recording: Any,
        given: tuple[Tensor, ...],
        made: tuple[Tensor, ...],
        options: dict[str, Any],
    ) -> None:
        self.kept, self.device, self.zeros, self.options = kept, given[0].device, len(recording.zeros), options
        self.made = [(x.shape, None if x.is_contiguous() else x.stride(), x.dtype) for x in made]
        sizes = [-(-x.nbytes // APART) * APART for x in recording.meanwhile]
        self.places = list(accumulate(sizes, initial=0))
        self.constants: list[Tensor | None] = [None]  # tables: while it is here they are
        numbered = *given, *made, *recording.meanwhile, *recording.zeros
        known = {id(x): n for n, x in enumerate(numbered)}
        none = len(numbered)
        fresh = *made, *recording.meanwhile  # kernels may know them by other shapes
        places = {x.data_ptr(): len(given) + n for n, x in enumerate(fresh) if x.numel()}
        self.launches: list[Any] = []
        for launch, kernel, grid, tensors, numbers in recording.launches:
            chosen: list[int] = []
            boxed: list[tuple[int, list[int], list[int]]] = []  # arguments that are descriptors
            for n, x in enumerate(tensors):
                if isinstance(x, boxes.Boxes):
                    boxed.append((n, x.shape, x.strides))
                    x = x.tensor
                if x is not None and id(x) not in known:
                    if x.is_floating_point():
                        if x.data_ptr() not in places:  # a copy of something given
                            raise LookupError
                        known[id(x)] = places[x.data_ptr()]
                    else:
                        known[id(x)] = none + len(self.constants)
                        self.constants.append(x)
                chosen.append(none if x is None else known[id(x)])
            prepared = launch.prepared(kernel)
            if prepared is None or not kept.are_usual(numbers):
                raise LookupError
            rest = *numbers, *prepared.constants
            self.launches.append((prepared, grid, itemgetter(*chosen), boxed, rest))
        self.kernels = {kernel for _, kernel, *_ in recording.launches}
        self.fixed = [None, *(x.data_ptr() for x in self.constants[1:])]  # type: ignore[union-attr]

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
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
        addresses = [x.data_ptr() for x in given]
        addresses += [x.data_ptr() for x in made]
        if len(self.places) > 1:
            room = torch.empty(self.places[-1], dtype=torch.uint8, device=device)
            begin = room.data_ptr()
            addresses += [begin + place for place in self.places[:-1]]
        if self.zeros:
            zeros = [graphs.zero(device) for _ in range(self.zeros)]
            addresses += [x.data_ptr() for x in zeros]
        if graphs.is_capturing(device):
            graphs.pin(self)
        addresses += self.fixed
        stream = kept.stream(device.index)
        for prepared, grid, chosen, boxed, rest in self.launches:
            arguments = chosen(addresses)
            if boxed:
                arguments = list(arguments)
                for n, shape, strides in boxed:
                    arguments[n] = boxes.Descriptor(shape, strides, arguments[n])
            prepared(grid, stream, (*arguments, *rest))
        return tuple(made)


def key_of(tensors: tuple[Any, ...], scale: Any, *wholes: Any) -> Any:
    """A key that tells this call from others; None where nothing is kept of it."""
    if not is_eager(*tensors) or not tensors[0].is_cuda or forward_ad._current_level >= 0:
        return None
    if scale is not None and type(scale) is not float:
        return None
    for x in wholes:
        if x is not None and type(x) is not int:
            return None
    tuned = paths.launch_tuned(tensors[0].device.type)
    if tuned.tried:
        return None
    facts = [scale, wholes, tuned.generation(), os.environ.get("PATTERNCC_KERNELS")]
    try:
        for x in tensors:
            strides = x.stride()
            # copies are made of what does not lie side by side; few kernels take what lies at odd addresses
            if strides[-1] != 1 or x.data_ptr() & 15:
                return None
            facts += x.shape, strides, x.dtype, x.device
    except (RuntimeError, IndexError):  # nested, of another layout, or of no dimension
        return None
    if tensors[0].dtype is torch.float32:
        facts.append(torch.get_float32_matmul_precision())
    return tuple(facts)


def found(key: Any) -> Recipe | None:
    """The recipe of earlier calls with this key; None where there is none, or where a launch hook is set."""
    recipe = None if key is None else _recipes.get(key)
    return None if recipe is None or recipe.kept.are_watched(recipe.kernels) else recipe


def recorded(
    key: Any, call: Callable[..., tuple[Tensor, ...]], options: dict[str, Any], *given: Tensor
) -> tuple[Tensor, ...]:
    """Make the call and return its results. Its recipe is kept if the call launched kernels and did nothing else.

    Nothing is kept while a graph is captured: the tables that are made then have contents only once the graph has run.
    """
    if key is None or torch.cuda.is_current_stream_capturing():
        return call(*given, **options)
    kept = paths.launch_kept(given[0].device.type)
    with (recording := kept.Recording()):
        made = call(*given, **options)
    if recording.is_whole and not recording.is_more and recording.launches:
        try:
            recipe = Recipe(kept, recording, given, made, options)
        except LookupError:
            return made
        if len(_recipes) >= MOST:
            _recipes.clear()
        _recipes[key] = recipe
    return made
