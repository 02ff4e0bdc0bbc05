"""Which kinds of KV caches a package has, as the kernels for their newest token tell them apart."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple


class CacheKind(NamedTuple):
    """What those kernels are compiled for, beside the types of numbers."""

    are_alike: bool  # whether the query heads of each KV head drop the same keys
    has_windows: bool  # whether tokens, not only whole blocks, say how long some key is needed
    has_sinks: bool  # whether some first tokens are needed for ever

    def purpose(self, splits: int) -> str:
        """Words for a step by so many programs that share keys."""
        return ", ".join(["classes apart"] * (not self.are_alike) + ["several programs"] * (splits > 1))


class Part(NamedTuple):
    """What a cache is for: some query heads of a layer, from the first one on."""

    layer: int
    first: int
    heads: int


def cache_kinds(pattern: ModuleType) -> dict[CacheKind, Part]:
    """Each kind of cache that a package can have, for a layer or some whole KV heads of it, and the first part that
    has one of that kind. `pattern`: the package's module."""
    share = pattern.HEADS // pattern.KV_HEADS
    found: dict[CacheKind, Part] = {}
    witnesses = pattern.FACTS.get("kv") or [None] * len(pattern.CLASS_OF)
    rows = {row: layer for layer, row in reversed([*enumerate(pattern.CLASS_OF)]) if row and not witnesses[layer]}
    for row, layer in rows.items() if pattern.CAUSAL else ():
        alone = [kind_of(pattern, row[head : head + share]) for head in range(0, len(row), share)]
        for first in range(len(alone)):
            kind = alone[first]
            for stop, own in enumerate(alone[first:], first + 1):
                kind = CacheKind(kind[0] and own[0], kind[1] or own[1], kind[2] or own[2])
                found.setdefault(kind, Part(layer, first * share, (stop - first) * share))
    return found


def kind_of(pattern: ModuleType, classes: tuple[int, ...]) -> CacheKind:
    """That of a cache for one KV head, whose query heads are of these classes."""
    own: list[Mapping[str, Any]] = [pattern.CLASSES[klass] for klass in set(classes)]
    reach = any(one["window"] or one["bands"] for one in own)
    return CacheKind(len(own) == 1, reach, any(one["sink"] for one in own))
