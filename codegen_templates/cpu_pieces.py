"""Where the pieces lie: tiles of queries within their span, gathered keys within memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .cpu_attend import Mask
from .cpu_plan import Call, Group, Span
from .pattern import BLOCK

KEYS_TOGETHER = 1 << 13  # gathered for one step
PAIRS_TOGETHER = 1 << 23  # of query and key in one step


@dataclass(frozen=True)
class Place:
    """The part of tensors [batch, heads, tokens, …] that a group's span and some sequences of the batch take up, seen
    as [batch, units, heads of a unit, tokens, …]."""

    group: Group
    span: Span
    batch: slice

    @cached_property
    def _at(self) -> tuple[slice, slice | list[int], slice]:
        heads = [head for unit in self.group.heads for head in unit]
        tokens = slice(self.span.first, self.span.first + self.span.tokens)
        run = range(heads[0], heads[0] + len(heads))
        return self.batch, slice(run.start, run.stop) if heads == list(run) else heads, tokens

    def read(self, x: Tensor) -> Tensor:
        return x[self._at].unflatten(1, (len(self.group.heads), len(self.group.heads[0])))

    def room(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Where to make this part of x: in x itself, or in memory of its own where x is of another type."""
        part = self.read(x)
        return part if self._is_in(x, dtype) else torch.empty(part.shape, dtype=dtype)

    def write(self, x: Tensor, part: Tensor) -> None:
        """Bring to x what was made in `room`."""
        if not self._is_in(x, part.dtype):
            x[self._at] = part.flatten(1, 2).to(x.dtype)

    def _is_in(self, x: Tensor, dtype: torch.dtype) -> bool:
        return isinstance(self._at[1], slice) and x.dtype == dtype


@dataclass(frozen=True)
class Step:
    """Some items of a call, for some sequences of the batch: as much as is gathered at a time."""

    call: Call
    kv_heads: Tensor  # [units]
    batch: slice
    items: slice
    box: tuple[range, range] | None  # the units and tiles that these items are, if they are a box

    def read(self, x: Tensor) -> Tensor:
        """The items in a span's tensor [batch, units, heads, tokens, …]: [batch, items, heads, tokens, …], or [batch,
        units, tiles, heads, tokens, …] of a box, as a view."""
        tiles = self._tiles(x)
        if self.box is not None:
            return tiles
        return tiles[:, 0].index_select(1, self._tile) if x.shape[1] == 1 else tiles[:, self._units, self._tile]

    def write(self, x: Tensor, part: Tensor) -> None:
        """Put in place what has the form that `read` gives, unless it is the view that `read` gave."""
        tiles = self._tiles(x)
        if self.box is not None:
            if part.data_ptr() != tiles.data_ptr():
                tiles.copy_(part)
        elif x.shape[1] == 1:
            tiles[:, 0].index_copy_(1, self._tile, part.to(x.dtype))
        else:
            tiles[:, self._units, self._tile] = part.to(x.dtype)

    def unflat(self, part: Tensor, x: Tensor) -> Tensor:
        """The inverse of `flat`: a part for x in the form that `read` gives."""
        items = (len(self._units),) if self.box is None else (len(self.box[0]), len(self.box[1]))
        return part.view(x.shape[0], *items, x.shape[2], self.call.tiles.tokens, *x.shape[4:])

    def flat(self, part: Tensor) -> Tensor:
        """What `read` gave, as pieces take it: [batch * items, 1, heads * tokens, …]."""
        return part.reshape(-1, 1, self.call.heads * self.call.tiles.tokens, *part.shape[5 - (self.box is None) :])

    def mask(self, dtype: torch.dtype) -> Mask | None:
        """Which queries of the items attend which keys; None for all."""
        if self.call.kinds is None:
            return None
        sequences = self.batch.stop - self.batch.start
        return self.call.kinds.mask(dtype, self.items, self.call.heads, sequences)

    def add_keys(self, blocks: Tensor, part: Tensor) -> None:
        """Add the items' part, [batch * items, 1, keys, dim], to all keys, [batch, units, blocks, BLOCK * dim]."""
        sequences, units, count, _ = blocks.shape
        batch = torch.arange(sequences)
        index = ((batch[:, None, None] * units + self._units[:, None]) * count + self.columns).flatten()
        if missing := self.columns.shape[1] * BLOCK - self.call.keys:
            part = torch.nn.functional.pad(part, (0, 0, 0, missing))
        blocks.view(-1, blocks.shape[-1]).index_add_(0, index, part.reshape(len(index), -1))

    @cached_property
    def heads(self) -> Tensor:
        """The items' KV heads: [items]."""
        return self.kv_heads[self._units]

    @cached_property
    def columns(self) -> Tensor:
        """The items' columns: [items, n]."""
        return self.call.columns[self.items]

    @cached_property
    def tokens(self) -> Tensor:
        """The items' keys: [items, keys]."""
        return (self.columns[:, :, None] * BLOCK + torch.arange(BLOCK)).flatten(1)[:, : self.call.keys]

    @cached_property
    def _units(self) -> Tensor:
        return self.call.units[self.items]

    @cached_property
    def _tile(self) -> Tensor:
        return self.call.tile[self.items]

    def _tiles(self, x: Tensor) -> Tensor:
        """x cut into the call's tiles, of a box only its own: [batch, units, tiles, heads, tokens, …]."""
        tiles = self.call.tiles
        units, run = self.box or (range(x.shape[1]), range(tiles.count))
        by_batch, by_unit, by_head, by_token, *rest = x.stride()
        shape = x.shape[0], len(units), len(run), x.shape[2], tiles.tokens, *x.shape[4:]
        strides = by_batch, by_unit, by_token * tiles.tokens, by_head, by_token, *rest
        first = units.start * by_unit + (tiles.first + run.start * tiles.tokens) * by_token
        return x.as_strided(shape, strides, x.storage_offset() + first)


def steps(call: Call, group: Group, batch: slice) -> Iterator[Step]:
    """Cut a call's items so that no step gathers too much: boxes into boxes."""
    sequences, items = batch.stop - batch.start, len(call.units)
    pairs = call.keys * call.tiles.tokens * call.heads
    most = max(1, min(KEYS_TOGETHER // call.keys, PAIRS_TOGETHER // pairs) // sequences)
    if call.box is None:
        for first in range(0, items, most):
            yield Step(call, group.kv_heads, batch, slice(first, min(items, first + most)), None)
        return
    units, run = call.box
    of_units, of_run = max(1, most // len(run)), min(most, len(run))
    for unit in range(0, len(units), of_units):
        for tile in range(0, len(run), of_run):  # one round where there are several units
            box = units[unit : unit + of_units], run[tile : tile + of_run]
            first = unit * len(run) + tile
            yield Step(call, group.kv_heads, batch, slice(first, first + len(box[0]) * len(box[1])), box)
