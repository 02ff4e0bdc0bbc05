"""Loads that the query heads of a KV head share where they keep the same near columns and different far ones."""

from __future__ import annotations

from functools import cache, lru_cache

import torch

from ..pattern import BLOCK, CAUSAL, CLASSES
from . import arrays, configs
from .arrays import Heads, Places, present, weight
from .graphs import tables

Splits = int | tuple[int, int]  # programs that share what a tile keeps; or its far columns, and its near ones


@cache
def members(heads: Heads) -> tuple[tuple[int, ...], ...]:
    """Of each KV head present, its query heads."""
    found: dict[int, list[int]] = {}
    for head, kv in enumerate(arrays.kv_heads(heads[2], heads[1])):
        found.setdefault(kv, []).append(head)
    return tuple(tuple(own) for _, own in sorted(found.items()))


@cache
def most(heads: Heads) -> int:
    """The most query heads of one KV head, as a power of two."""
    return 1 << (max(map(len, members(heads)), default=1) - 1).bit_length()


@cache
def near(heads: Heads) -> int:
    """The distance in blocks below which query heads of one KV head keep all columns; 0 where some do not keep them,
    or where those of each KV head are alike."""
    return configs.near(([CLASSES[klass] for klass in kinds] for kinds in _kinds(heads)), BLOCK) if CAUSAL else 0


@cache
def _kinds(heads: Heads) -> list[list[int]]:
    """Of each KV head present, the classes of its query heads."""
    classes = present(*heads)
    return [sorted({classes[head] for head in own}) for own in members(heads)]


@lru_cache(1024)
def saved(heads: Heads, columns: int) -> float:
    """About which share of a row's loads is saved."""
    reach = min(near(heads), columns)
    loads = [[min(weight(klass, columns), columns) for klass in kinds] for kinds in _kinds(heads)]
    now = sum(map(sum, loads))
    return 1 - sum(reach + sum(max(n - reach, 0) for n in own) for own in loads) / now if now else 0.0


def programs(
    heads: Heads, rows: tuple[int, int], columns: int, size: int, tiles: int, splits: Splits, device: torch.device
) -> tuple[tuple[torch.Tensor | None, ...], int, int, int]:
    """What the forward kernel reads of rows `rows[0]` to `rows[1]`, in groups of `size` heads: `groups`, `shares`,
    `pattern`, `columns`; how many parts a row has; and of a request of so many tiles, how many programs the grid has
    beside those of groups, and how many tiles are merged, each by one program."""
    if isinstance(splits, int):
        pattern, entries, groups = arrays.row_groups(heads, rows, columns, size, device)
        return (groups, None, pattern, entries), splits, tiles * splits, tiles * groups.shape[0]
    pattern, entries, places = arrays.row_arrays(present(*heads), rows, columns, device)
    found = *_programs(heads, places, size, splits, device), pattern, entries
    return found, sum(splits), tiles, tiles * len(members(heads))


@tables()
def _programs(
    heads: Heads, places: Places, size: int, splits: tuple[int, int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The heads and the share of each program: those of near columns first, the first of each KV head before others.
    ValueError where heads have none in common, or are too many for a tile."""
    far, shared = splits
    reach, classes, place = near(heads), present(*heads), dict(places)
    if not reach or size < most(heads):
        raise ValueError("these query heads cannot share loads")
    kinds, own = _kinds(heads), members(heads)
    counts = [shared + far * len(some) for some in kinds]
    rows = [
        ([kv, place[kinds[kv][0]], *own[kv]], (reach, n, shared, n, counts[kv]))
        for n in range(shared)
        for kv in range(len(own))
    ]
    rows += [
        (
            [kv, place[klass], *(head if classes[head] == klass else -1 for head in own[kv])],
            (-reach, n, far, shared + n, counts[kv]),
        )
        for kv in range(len(own))
        for klass in kinds[kv]
        for n in range(far)
    ]
    padded = [[*group, *[-1] * (2 + size - len(group))] for group, _ in rows]
    as_ints = {"dtype": torch.int32, "device": device}
    return torch.tensor(padded, **as_ints), torch.tensor([share for _, share in rows], **as_ints)
