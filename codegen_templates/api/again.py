"""Calls like one before: what that one launched on a GPU is launched again, for other tensors of the same shapes.

All that is looked at before a launch, and all that is worked out for it, follows from shapes, strides, dtypes, devices
and numbers, from what was tuned and from the environment. Where these are the same, only memory is another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..pattern import FORM
from .dispatch import is_plain, path

MOST = 512 if FORM == "closed" else 16  # kinds of calls that are kept: a recipe holds its tables
_recipes: dict[Any, Recipe] = {}


class Recipe:
    """The launches of a call. Its tensors are numbered: those given, output, LSE, what is only used meanwhile, and what
    is the same for all calls."""

    def __init__(self, launches: list[Any], given: tuple[Tensor, ...], made: tuple[Tensor, ...]) -> None:
        constants: list[Tensor | None] = [None]
        known = {id(x): n for n, x in enumerate((*given, *made))}
        self.launches: list[Any] = []
        for launch, kernel, grid, tensors, numbers in launches:
            for x in tensors:
                if x is not None and id(x) not in known:
                    if x.is_floating_point():  # a copy of something given
                        raise LookupError
                    known[id(x)] = len(given) + len(made) + len(constants)
                    constants.append(x)
            places = [known.get(id(x), len(given) + len(made)) for x in tensors]
            self.launches.append((launch, kernel, grid, itemgetter(*places), numbers))
        self.constants, self.shapes = constants, [x.shape for x in made[1:]]

    def __call__(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Output like the first tensor, and LSE."""
        device = given[0].device
        out, rest = (
            torch.empty_like(given[0]),
            [torch.empty(x, dtype=torch.float32, device=device) for x in self.shapes],
        )
        tensors = *given, out, *rest, *self.constants
        for launch, kernel, grid, chosen, numbers in self.launches:
            launch(kernel, grid, chosen(tensors), numbers)
        return out, rest[0]


def key_of(tensors: tuple[Any, ...], scale: Any, *wholes: Any) -> Any:
    """A key that tells this call from others; None where nothing is kept of it."""
    if not is_plain(*tensors) or not tensors[0].is_cuda or forward_ad._current_level >= 0:
        return None
    if scale is not None and type(scale) is not float:
        return None
    for x in wholes:
        if x is not None and type(x) is not int:
            return None
    tuned, hopper = path(tensors[0], "launch.tuned", ""), os.environ.get("PATTERNCC_KERNELS")
    try:
        shapes = [(x.shape, x.stride(), x.dtype, x.device) for x in tensors]
        if any(strides[-1] != 1 for _, strides, _, _ in shapes):  # copies are made of these
            return None
    except (RuntimeError, IndexError):  # nested, of another layout, or of no dimension
        return None
    tf32 = tensors[0].dtype is torch.float32 and torch.get_float32_matmul_precision()
    return None if tuned.tried else (*shapes, scale, wholes, tuned.generation(), hopper, tf32)


def found(key: Any) -> Recipe | None:
    return None if key is None else _recipes.get(key)


def recorded(
    key: Any, given: tuple[Tensor, ...], forward: Callable[..., tuple[Tensor, Tensor]], *rest: Any, **options: Any
) -> tuple[Tensor, Tensor]:
    """What the call gives, of which the recipe is kept from now on; but not while a graph is captured, since what is
    made then is there only once the graph has run; nor of what lies at odd addresses, which few kernels take."""
    if key is None or torch.cuda.is_current_stream_capturing() or any(x.data_ptr() & 15 for x in given):
        return forward(*given, *rest, **options)
    recording = path(given[0], "launch.kept", "").Recording()
    with recording:
        out, lse = forward(*given, *rest, **options)
    try:
        if recording.launches and out.stride() == torch.empty_like(given[0]).stride():
            if len(_recipes) >= MOST:
                _recipes.clear()
            _recipes[key] = Recipe(recording.launches, given, (out, lse, *recording.meanwhile))
    except LookupError:
        pass
    return out, lse
