"""Arrays that the kernels read, on each device: the classes' integers or tables, and the groups of heads."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache, lru_cache

import torch

from ..kernels import index_map, row_map
from ..pattern import BLOCK, CAUSAL, CLASS_OF, CLASSES, FORM
from ..rules.heads import kv_head
from ..rules.tables import Table, column_table, room, row_table, tile_table
from . import configs
from .graphs import tables

Heads = tuple[int, int, int]  # which are present: of which layer, from which one on, how many
PIECE = 64  # rows of tokens: ROWS of hopper/tiles.py
Places = tuple[tuple[int, int], ...]  # of each class, where what the kernels read of it begins


def row_groups(
    heads: Heads, rows: tuple[int, int], columns: int, size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """`pattern` and `columns` for rows `rows[0]` to `rows[1]`, as `index_map` reads them, and the heads in groups."""
    if FORM == "closed":
        return _closed_groups(heads, size, device)
    classes = present(*heads)
    pattern, entries, places = row_arrays(classes, rows, columns, device)
    return pattern, entries, head_groups(classes, heads[1], places, size, device)


@tables()
def _closed_groups(heads: Heads, size: int, device: torch.device) -> tuple[torch.Tensor, None, torch.Tensor]:
    pattern, places = class_ints(False, device)
    return pattern, None, head_groups(present(*heads), heads[1], places, size, device)


def row_arrays(
    classes: tuple[int, ...], rows: tuple[int, int], columns: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None, Places]:
    """For rows `rows[0]` to `rows[1]`, what `index_map` reads: `pattern`, `columns`."""
    if FORM == "closed":
        pattern, places = class_ints(False, device)
        return pattern, None, places
    first = 0 if CAUSAL else -room(-rows[0])  # causal rows below 0 keep nothing: they read the record of row 0
    return class_tables(False, classes, first, room(max(rows[1], 1)), room(columns), device)


def column_arrays(
    classes: tuple[int, ...], rows: tuple[int, int], columns: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None, Places]:
    """For as many columns, what `row_map` reads: `pattern`, `rows`."""
    if FORM == "closed":
        pattern, places = class_ints(True, device)
        return pattern, None, places
    first = 0 if CAUSAL else -room(-rows[0])
    return class_tables(True, classes, first, room(rows[1]), room(columns), device)


@tables()
def class_ints(inverse: bool, device: torch.device) -> tuple[torch.Tensor, Places]:
    """The classes' integers, one class after the other."""
    ints = row_map.CLASS_INTS if inverse else index_map.CLASS_INTS
    numbers = torch.tensor([number for row in ints for number in row] or [0], dtype=torch.int32, device=device)
    return numbers, tuple((klass, klass * len(row)) for klass, row in enumerate(ints))


@tables(most=16)
def class_tables(
    inverse: bool, classes: tuple[int, ...], first: int, rows: int, columns: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, Places]:
    """A record of every row from `first` on of every class, and all their columns; or the inverse of this.

    A record says where the row's columns begin, where those that are kept in part begin, where they end, and then the
    integers of its class. A class's place is that of row 0.
    """
    build, ints = (column_table, row_map.CLASS_INTS) if inverse else (row_table, index_map.CLASS_INTS)
    least, stop = (0, columns) if inverse else (first, rows)
    known = {klass: build(klass, rows, columns, device, first) for klass in sorted(set(classes))}
    return laid_out(known, ints, least, stop)


def tile_groups(
    heads: Heads, rows: tuple[int, int], columns: int, tile: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """`row_groups` for kernels whose tiles of so many rows of tokens begin at multiples of that; each head is a group.
    A pattern's records are of tiles, not of rows of blocks."""
    if FORM == "closed":
        return _closed_groups(heads, 1, device)
    classes = present(*heads)
    first, stop = rows[0] * BLOCK // tile, -(-max(rows[1] * BLOCK, 1) // tile)
    first = 0 if CAUSAL else -room(-first)
    pattern, entries, places = tile_tables(classes, tile, first, room(stop), room(columns), device)
    return pattern, entries, head_groups(classes, heads[1], places, 1, device)


@tables(most=16)
def tile_tables(
    classes: tuple[int, ...], tile: int, first: int, tiles: int, columns: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, Places]:
    """`class_tables` of tiles of so many rows of tokens, from number `first` on, with the entries of `tile_table`."""
    piece = min(BLOCK, PIECE)
    sizes = tile // piece, piece, tiles, columns, device, first
    known = {klass: tile_table(klass, *sizes) for klass in sorted(set(classes))}
    records, entries, places = laid_out(known, index_map.CLASS_INTS, first, tiles)
    return records.int() if len(entries) < 1 << 31 else records, entries, places


def laid_out(
    known: dict[int, Table], ints: tuple[tuple[int, ...], ...], least: int, stop: int
) -> tuple[torch.Tensor, torch.Tensor, Places]:
    """The records of these classes' tables from `least` to `stop`, one class after the other, and all entries."""
    records, entries, taken = [], [], 0
    for klass, (pointers, whole, listed) in known.items():
        pointers, whole = pointers[: stop - least + 1] + taken, whole[: stop - least]
        same = [torch.full_like(pointers[1:], number) for number in ints[klass]]
        records.append(torch.stack([pointers[:-1], pointers[:-1] + whole, pointers[1:], *same], 1))
        entries.append(listed)
        taken += len(listed)
    width = 3 + len(ints[0])
    places = tuple((klass, (n * (stop - least) - least) * width) for n, klass in enumerate(known))
    return torch.cat(records), torch.cat(entries), places


@tables()
def head_groups(
    classes: tuple[int, ...], head_offset: int, places: Places, size: int, device: torch.device
) -> torch.Tensor:
    """The heads in groups of one KV head and one class, those that keep most first: [groups, 2 + size] int32 with the
    KV head, the place of the class and the query heads, -1 for none. `classes` are those of the heads present."""
    place = dict(places)
    members: dict[tuple[float, int, int], list[int]] = {}
    for head, (kv, klass) in enumerate(zip(kv_heads(len(classes), head_offset), classes, strict=True)):
        members.setdefault((-weight(klass), kv, klass), []).append(head)
    groups = [
        [kv, place[klass], *heads[n : n + size], *[-1] * (n + size - len(heads))]
        for (_, kv, klass), heads in sorted(members.items())
        for n in range(0, len(heads), size)
    ]
    return torch.tensor(groups, dtype=torch.int32, device=device)


@cache
def group_size(classes: tuple[int, ...], head_offset: int) -> int:
    """The most heads of one KV head and one class, as a power of two."""
    alike = Counter(zip(kv_heads(len(classes), head_offset), classes, strict=True))
    return 1 << (max(alike.values()) - 1).bit_length()


def kv_heads(heads: int, head_offset: int) -> list[int]:
    """For each query head present, the number of its KV head among those present."""
    return [kv_head(head, head_offset) for head in range(heads)]


@cache
def kinds(heads: Heads) -> int:
    """How many programs it takes for the query heads present where those of a KV head and class share one."""
    classes = present(*heads)
    return len(set(zip(kv_heads(len(classes), heads[1]), classes, strict=True)))


@lru_cache(1024)
def kept(heads: Heads, columns: int) -> int:
    """About how many columns the last of so many rows keeps, of the heads present the one that keeps most."""
    return min(columns, math.ceil(max((weight(klass, columns) for klass in set(present(*heads))), default=0)))


@cache
def shared(heads: Heads) -> int:
    """The most heads that may share a tile."""
    return group_size(present(*heads), heads[1])


@cache
def are_dense(heads: Heads) -> bool:
    """Whether all heads present keep all columns."""
    return configs.keeps_all([CLASSES[klass] for klass in set(present(*heads))])


def weight(klass: int, row: int = 4096) -> float:
    """About how many columns a row far down keeps."""
    if CLASSES[klass]["closed"] is None:
        return _density(klass) * row
    sink, bands = CLASSES[klass]["closed"]
    spans = [
        (max(low or 0, 0), row if high is None else min(row, high), every, kept) for low, high, every, kept, _ in bands
    ]
    near = CLASSES[klass]["chunk"] / 2
    return sink + near + sum(max(high - low, 0) * len(kept) / every for low, high, every, kept in spans)


@cache
def _density(klass: int) -> float:
    """About the share of all columns that rows 32 to 63 keep."""
    return row_table(klass, 64, 64)[1][32:].float().mean().item() / 64


def present(layer: int, head_offset: int, heads: int) -> tuple[int, ...]:
    """The classes of the heads present."""
    return tuple(CLASS_OF[layer][head_offset : head_offset + heads])
