"""Calls like one before: what that one launched on a GPU is launched again, for other tensors of the same shapes.

All that is looked at before a launch, and all that is worked out for it, follows from shapes, strides, dtypes, devices
and numbers, from what was tuned and from the environment. Where these are the same, only memory is another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..launch import graphs
from ..pattern import CLASS_OF, FORM
from . import paths
from .dispatch import is_eager, wants_gradient
from .recipe import Recipe

MOST = 512 if FORM == "closed" else 16  # kinds of calls that are kept: a recipe holds its tables
MOST_SEEN = 4096
_recipes: dict[Any, Recipe] = {}
_seen: set[Any] = set()  # keys of calls that came once
ALIKE = {layer: CLASS_OF.index(classes) for layer, classes in enumerate(CLASS_OF)}  # the first layer with these classes


def key_of(call: str, given: tuple[Any, ...], scale: Any, layer: Any, *wholes: Any) -> Any:
    """A key that tells this call from others; None where nothing is kept of it. `given`: tensors, and None in the place
    of those that are not there; the last are sinks, which kernels read one by one, wherever they lie. Layers whose
    heads have the same classes launch the same: their calls have one key."""
    first = given[0]
    if not is_eager(*given) or not first.is_cuda or forward_ad._current_level >= 0:
        return None
    if scale is not None and (type(scale) is not float or scale < 0):  # then a copy of q is negated
        return None
    for x in (layer, *wholes):
        if x is not None and type(x) is not int:
            return None
    tuned = paths.launch_tuned(first.device.type)
    if tuned.tried:
        return None
    facts = [call, scale, ALIKE.get(layer, layer), wholes, tuned.generation(), os.environ.get("PATTERNCC_KERNELS")]
    try:
        for x in given:
            if x is None:
                facts.append(None)
                continue
            strides = x.stride()
            # copies are made of what does not lie side by side; few kernels take what lies at odd addresses
            if strides[-1] != 1 or (x.data_ptr() & 15 and x is not given[-1]):
                return None
            facts += x.shape, strides, x.dtype, x.device
    except (RuntimeError, IndexError):  # nested, of another layout, or of no dimension
        return None
    if first.dtype is torch.float32:
        facts.append(torch.get_float32_matmul_precision())
    if len({*map(id, given)}) < len(given):  # one tensor in several places: a kernel that takes it is given either
        own = [*map(id, given)]
        facts.append(tuple(map(own.index, own)))
    return tuple(facts)


def are_open(*given: Tensor | None) -> bool:
    """Whether kernels may be launched for these tensors, and no operator of torch is missed."""
    return is_eager(*given, in_autocast=True) and forward_ad._current_level < 0  # type: ignore[arg-type]


def found(key: Any) -> Recipe | None:
    """The recipe of earlier calls with this key; None where there is none, or where a launch hook is set."""
    recipe = None if key is None else _recipes.get(key)
    return None if recipe is None or recipe.kept.are_watched(recipe.kernels) else recipe


def gradients(
    call: str,
    given: tuple[Any, ...],
    place: dict[str, Any],
    compute: Callable[[], Callable[..., tuple[Tensor, ...]]],
    opened: Callable[[], tuple[Tensor, ...]],
) -> tuple[Tensor, ...]:
    """The gradients of a call, from its recipe or from the function that `compute` returns. From `opened`, through an
    operator of torch, where a mode, a transformation or a second derivative would have to see one."""
    if wants_gradient(*given):
        return opened()
    wholes = (x for name, x in place.items() if name not in ("scale", "layer"))
    key = key_of(call, given, place["scale"], place["layer"], *wholes)
    if (recipe := found(key)) is not None:
        return recipe(*given)
    return recorded(key, compute(), place, *given) if is_eager(*given) else opened()


def recorded(
    key: Any, call: Callable[..., tuple[Tensor, ...]], options: dict[str, Any], *given: Tensor | None
) -> tuple[Tensor, ...]:
    """Make the call and return its results. Its recipe is kept if its key came before, since making one takes as long
    as the call, and if the call launched kernels and did nothing else.

    Nothing is kept while a graph is captured: the tables that are made then have contents only once the graph has run.
    """
    if key is None or torch.cuda.is_current_stream_capturing():
        return call(*given, **options)
    if key not in _seen:
        if len(_seen) >= MOST_SEEN:
            _seen.clear()
        _seen.add(key)
        return call(*given, **options)
    kept = paths.launch_kept(given[0].device.type)  # type: ignore[union-attr]
    with (recording := kept.Recording()):
        made = call(*given, **options)
    if recording.is_whole and recording.launches:
        try:
            recipe = Recipe(kept, recording, given, made, options)
        except LookupError:
            return made
        if len(_recipes) >= MOST:
            for device in {each.device for each in _recipes.values()}:
                graphs.quiet(device)
            _recipes.clear()
        _recipes[key] = recipe
    return made
