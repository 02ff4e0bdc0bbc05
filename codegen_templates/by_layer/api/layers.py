"""Every exported function, as the one of the package that serves the layer: `layer` says which, and is 0 unless given.

What is bound to a layer, a `KVCache` or an `exchange_plan`, stays with its layer's package.
"""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

from ..pattern import FACTS, PART_OF, PARTS

_root = __package__.rpartition(".")[0]
parts = tuple(import_module(place, _root) for place in PARTS)
_whole = import_module(f"{parts[0].attention.__module__.rpartition('.api.')[0]}.checks.values").whole
combine = parts[0].combine  # the same for every shape


def part(layer: int) -> ModuleType:
    """The package that serves a layer: one of a single shape, which exports the same functions."""
    return parts[_number(layer)]


def _number(layer: int) -> int:
    layer = _whole("layer", layer)
    if not 0 <= layer < len(PART_OF):
        raise ValueError(f"{FACTS['name']} has layers 0 to {len(PART_OF) - 1}; layer={layer} is none of them")
    return PART_OF[layer]


def _by_layer(name: str) -> Callable[..., Any]:
    """The exported function of this name."""
    functions = tuple(getattr(one, name) for one in parts)

    @wraps(functions[0], assigned=("__name__", "__qualname__", "__doc__"), updated=())
    def call(*given: Any, layer: int = 0, **options: Any) -> Any:
        return functions[_number(layer)](*given, layer=layer, **options)

    return call


def _by_plan(name: str, place: int) -> Callable[..., Any]:
    """The exported function of this name, which takes what `exchange_plan` gave as its argument at this place."""
    functions = tuple(getattr(one, name) for one in parts)

    @wraps(functions[0], assigned=("__name__", "__qualname__", "__doc__"), updated=())
    def call(*given: Any, **options: Any) -> Any:
        plan = given[place] if len(given) > place else options.get("plan")
        return functions[_number(getattr(plan, "layer", 0))](*given, **options)

    return call


attention = _by_layer("attention")
attention_varlen = _by_layer("attention_varlen")
attention_paged = _by_layer("attention_paged")
decode = _by_layer("decode")
dense_mask = _by_layer("dense_mask")
dead_pages = _by_layer("dead_pages")
exchange_plan = _by_layer("exchange_plan")
attention_split = _by_plan("attention_split", 3)
sparse_all_gather = _by_plan("sparse_all_gather", 0)


class KVCache(ABC):  # noqa: B024 (the caches of all shapes count as its instances)
    __doc__ = parts[0].KVCache.__doc__
    __signature__ = inspect.signature(parts[0].KVCache)

    def __new__(cls, *given: Any, layer: int = 0, **options: Any) -> Any:
        """The cache of the layer's own package, which counts as an instance of this class."""
        return part(layer).KVCache(*given, layer=layer, **options)


for _part in parts:
    KVCache.register(_part.KVCache)
