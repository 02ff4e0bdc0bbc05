"""The index map of a class as a table, built when a length asks for it and kept for shorter ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..pattern import BLOCK, CAUSAL
from .masks import CHUNK, keeps_blocks, touches_blocks

Table = tuple[Tensor, Tensor, Tensor]
MOST = 256  # tables that are kept: their first rows and keys may be other ones in each call
_kept: dict[tuple[str, int, int, str, int, int], tuple[int, int, Table]] = {}
BITS = 12  # of an entry of a tile's table below its column: BITS of kernels/hopper/tiles.py


def row_table(klass: int, rows: int, columns: int, device: torch.device | str = "cpu", first: int = 0) -> Table:
    """For rows first..rows-1 the columns that each keeps: pointers int64 [n + 1], whole int32 [n], columns int32
    [entries], where n = rows - first.

    The first whole[row] columns of a row are kept whole, the rest only in part by a window or sink given in tokens;
    both are sorted. Causality does not make a block partial, but cuts off what lies ahead of the diagonal. The table
    may be larger than asked for: further rows, and columns beyond `columns`.
    """
    return _table("rows", klass, rows, columns, str(device), first)


def column_table(klass: int, rows: int, columns: int, device: torch.device | str = "cpu", first: int = 0) -> Table:
    """The inverse: for columns 0..columns-1 the rows, from `first` on, that keep each of them."""
    return _table("columns", klass, rows, columns, str(device), first)


def tile_table(
    klass: int, pieces: int, piece: int, tiles: int, columns: int, device: torch.device | str = "cpu", first: int = 0
) -> Table:
    """For tiles first..tiles-1, of so many pieces of so many rows of tokens each, the columns that any row of each
    keeps: pointers and entries as of `row_table`, the entries `column << BITS` with a bit for each piece that keeps the
    column whole. First those that all rows keep whole and causality does not cut, of which there are whole[tile]."""
    return _table("tiles", klass, tiles, columns, str(device), first, pieces, piece)


def _table(
    of: str, klass: int, rows: int, columns: int, device: str, first: int, pieces: int = 0, piece: int = 0
) -> Table:
    rows, columns = room(rows), room(columns)

    def make() -> Table:
        i, j = torch.arange(first, rows, device="cpu"), torch.arange(columns, device="cpu")
        if of == "tiles":
            table = build_tiles(klass, i, j, pieces, piece)
        else:
            table = build(klass, i, j) if of == "rows" else build(klass, i, j, transposed=True)
        return tuple(x.to(device) for x in table)  # type: ignore[return-value]

    return grown(_kept, (of, klass, first, device, pieces, piece), rows, columns, make)


def grown(
    kept: dict[Any, tuple[int, int, Table]], key: Any, rows: int, columns: int, make: Callable[[], Table]
) -> Table:
    """The table kept for a key if it has at least so many rows and columns, else what `make` makes, which is kept from
    then on; of MOST keys at most. Other threads may put a smaller one in its place, or clear all, at any moment."""
    found = kept.get(key)
    if found is None or found[0] < rows or found[1] < columns:
        if len(kept) >= MOST:
            kept.clear()
        found = kept[key] = rows, columns, make()
    return found[2]


def build(klass: int, i: Tensor, j: Tensor, *, transposed: bool = False) -> Table:
    """The table of rows i and columns j, consecutive numbers; transposed, of columns and rows."""
    outer, inner = (j, i) if transposed else (i, j)
    counts, wholes, entries = [], [], []
    for chunk in outer.split(max(1, CHUNK // max(1, len(inner)))):
        pair = (inner[None, :], chunk[:, None]) if transposed else (chunk[:, None], inner[None, :])
        whole = keeps_blocks(klass, *pair)
        part = touches_blocks(klass, *pair)
        if CAUSAL:
            whole &= pair[1] <= pair[0]
            part &= pair[1] <= pair[0]
        found = _sorted(whole, part & ~whole)
        counts.append((whole | part).sum(1))
        wholes.append(whole.sum(1))
        entries.append(inner[found[:, 1]].int())
    return _table_of(counts, wholes, entries)


def build_tiles(klass: int, tiles: Tensor, j: Tensor, pieces: int, piece: int) -> Table:
    """The table of these tiles, consecutive numbers, and columns j, of pieces of so many tokens each."""
    counts, wholes, entries = [], [], []
    every = (1 << pieces) - 1
    for chunk in tiles.split(max(1, CHUNK // max(1, len(j) * pieces))):
        places = chunk[:, None] * pieces + torch.arange(pieces, device="cpu")
        i = (places * piece).div(BLOCK, rounding_mode="floor")  # [tiles, pieces]
        pair = i.view(-1, 1), j[None, :]
        whole, part = keeps_blocks(klass, *pair), touches_blocks(klass, *pair)
        if CAUSAL:
            whole &= j <= pair[0]
            part &= j <= pair[0]
        is_kept = (whole | part).view(*i.shape, -1).any(1)
        bits = torch.zeros(is_kept.shape, dtype=torch.int32, device="cpu")
        for n in range(pieces):
            bits |= whole.view(*i.shape, -1)[:, n].int() << n
        is_far = bits == every
        if CAUSAL:
            is_far &= j < i[:, :1]
        found = _sorted(is_far, is_kept & ~is_far)
        counts.append(is_kept.sum(1))
        wholes.append(is_far.sum(1))
        entries.append(j[found[:, 1]].int() << BITS | bits[found[:, 0], found[:, 1]])
    return _table_of(counts, wholes, entries)


def _sorted(first: Tensor, then: Tensor) -> Tensor:
    """(row, column) of what is true in `first`, behind it in `then`, row by row."""
    found = torch.cat([first.nonzero(), then.nonzero()])
    return found[found[:, 0].argsort(stable=True)]


def _table_of(counts: list[Tensor], wholes: list[Tensor], entries: list[Tensor]) -> Table:
    zero = torch.zeros(1, dtype=torch.int64, device="cpu")
    pointers = torch.cat([zero, *counts]).cumsum(0)
    return pointers, torch.cat([zero[:0], *wholes]).int(), torch.cat([zero[:0].int(), *entries])


def room(n: int) -> int:
    """n, or 0 if it is less, rounded up, so that a growing sequence rarely needs a new table: room(room(n)) is
    room(n)."""
    step = max(16, 1 << max(n, 1).bit_length() >> 3)
    return -(-max(n, 0) // step) * step
