"""Where the pieces lie: tiles of queries within their span, gathered keys within memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..pattern import BLOCK
from .attend import Mask
from .plan import Call, Group, Segment

KEYS_TOGETHER = 1 << 13  # gathered for one step
QUERIES_TOGETHER = 1 << 12  # attended in one step
MOST_KEPT = 8  # layouts of memory, and sizes of a batch, for which places are kept

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """The part of tensors [batch, heads, tokens, …] that a group's span and some sequences of the batch take up, seen
    as [batch, units, heads of a unit, tokens, …]."""

    group: Group
    span: Segment
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
        """Memory for this part of x: x itself, or a new tensor where x has another dtype."""
        part = self.read(x)
        return part if self._is_in(x, dtype) else torch.empty(part.shape, dtype=dtype, device="cpu")

    def write(self, x: Tensor, part: Tensor) -> None:
        """Copy to x a part that was computed in `room`, unless it is x's own memory."""
        if not self._is_in(x, part.dtype):
            x[self._at] = part.flatten(1, 2).to(x.dtype)

    def _is_in(self, x: Tensor, dtype: torch.dtype) -> bool:
        return isinstance(self._at[1], slice) and x.dtype == dtype


class Even(NamedTuple):
    """Keys that lie evenly: the first one's KV head and column, and how far it is from there to the next piece, along
    both dimensions of `Step.lead`."""

    head: int
    column: int
    next: tuple[int, int, int]  # in sequences, KV heads and columns
    next_columns: int


@dataclass(frozen=True)
class Step:
    """Some items of a call, for so many sequences: as much as is attended at a time. What does not depend on tensors is
    worked out once."""

    call: Call
    kv_heads: Tensor  # [units]
    sequences: int
    items: slice
    box: tuple[range, range] | None  # the units and tiles that these items are, if they are a box
    starts: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False, compare=False)  # see `keys`

    def read(self, x: Tensor) -> Tensor:
        """The items in a span's tensor [batch, units, heads, tokens, …]: [batch, items, heads, tokens, …], or [batch,
        units, tiles, heads, tokens, …] of a box, as a view."""
        tiles = self._tiles(x)
        if self.box is not None:
            return tiles
        return tiles[:, 0].index_select(1, self._tile) if x.shape[1] == 1 else tiles[:, self._units, self._tile]

    def write(self, x: Tensor, part: Tensor) -> None:
        """Write a part in the form that `read` returns to its place in x."""
        tiles = self._tiles(x)
        if self.box is not None:
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
        """The result of `read` as the attention of pieces takes it: [*lead, tokens, …], the heads of a unit together
        unless they are computed apart."""
        return part.reshape(*self.lead, -1, *part.shape[5 - (self.box is None) :])

    def mask(self, dtype: torch.dtype) -> Mask | None:
        """Which queries of the items attend which keys; None for all."""
        if self.call.kinds is None:
            return None
        return self.call.kinds.mask(dtype, self.items, self.call.heads, self.sequences)

    def add_keys(self, blocks: Tensor, part: Tensor) -> None:
        """Add the items' part, [*lead, keys, dim], to all keys, [batch, units, blocks, BLOCK * dim]."""
        if self.call.causal and self.call.heads > 1:
            part = part.sum(1, keepdim=True)
        if self.is_cut:
            part = torch.nn.functional.pad(part, (0, 0, 0, self.columns.shape[1] * BLOCK - self.call.keys))
        index = self._blocks(blocks.shape[1], blocks.shape[2])
        blocks.view(-1, blocks.shape[-1]).index_add_(0, index, part.reshape(len(index), -1))

    @cached_property
    def lead(self) -> tuple[int, int]:
        """How pieces are numbered: heads apart, tiles apart, or all items one after another."""
        if self.call.causal:
            return self.sequences * len(self.heads), self.call.heads
        if self.box is not None and len(self.box[0]) > 1 and self.call.slide is not None:
            return self.sequences * len(self.box[0]), len(self.box[1])
        return self.sequences * len(self.heads), 1

    @cached_property
    def even(self) -> Even | None:
        """The places of the keys where these are evenly spaced in memory, so that they are used in place; else None."""
        if self.box is None or self.call.slide is None:
            return None
        units, run = self.box
        heads = self.heads[:: len(run)].tolist()
        if not _is_even(heads):
            return None
        next_head = heads[1] - heads[0] if len(heads) > 1 else 0
        first, slide = int(self.columns[0, 0]), self.call.slide
        if self.sequences > 1:
            return Even(heads[0], first, (1, 0, 0), 0) if len(units) == len(run) == 1 else None
        if len(units) > 1 or self.call.causal:
            return Even(heads[0], first, (0, next_head, 0), 0 if self.call.causal else slide)
        return Even(heads[0], first, (0, 0, slide), 0)

    @cached_property
    def is_cut(self) -> bool:
        """Whether the last block has keys that do not exist."""
        return self.call.keys < self.columns.shape[1] * BLOCK

    @cached_property
    def heads(self) -> Tensor:
        """The items' KV heads: [items]."""
        return self.kv_heads[self._units]

    @cached_property
    def columns(self) -> Tensor:
        """The items' columns: [items, n]."""
        return self.call.columns[self.items]

    @cached_property
    def _units(self) -> Tensor:
        return self.call.units[self.items]

    @cached_property
    def _tile(self) -> Tensor:
        return self.call.tile[self.items]

    def _blocks(self, units: int, blocks: int) -> Tensor:
        """The numbers of the items' blocks among those of all sequences and units: [batch * items * n]."""

        def make() -> Tensor:
            batch = torch.arange(self.sequences, device="cpu")[:, None, None]
            return ((batch * units + self._units[:, None]) * blocks + self.columns).flatten()

        return known(self.starts, (units, blocks), make)

    def _tiles(self, x: Tensor) -> Tensor:
        """x cut into the call's tiles, of a box only its own: [batch, units, tiles, heads, tokens, …]."""
        tiles = self.call.tiles
        units, run = self.box or (range(x.shape[1]), range(tiles.count))
        by_batch, by_unit, by_head, by_token, *rest = x.stride()
        shape = x.shape[0], len(units), len(run), x.shape[2], tiles.tokens, *x.shape[4:]
        strides = by_batch, by_unit, by_token * tiles.tokens, by_head, by_token, *rest
        first = units.start * by_unit + (tiles.first + run.start * tiles.tokens) * by_token
        return x.as_strided(shape, strides, x.storage_offset() + first)


def steps(call: Call, group: Group, sequences: int) -> tuple[Step, ...]:
    """A call's items, cut so that no step takes too much."""
    return known(call.steps, sequences, lambda: tuple(_cut(call, group.kv_heads, sequences)))


def known(kept: dict[Any, T], key: Any, make: Callable[[], T]) -> T:
    """The value that is kept for a key. Where there is none, it is made by `make()` and kept; before there are more
    than MOST_KEPT, all are forgotten. Another thread may do that at any moment."""
    found = kept.get(key)
    if found is None:
        if len(kept) >= MOST_KEPT:
            kept.clear()
        found = kept[key] = make()
    return found


def _cut(call: Call, kv_heads: Tensor, sequences: int) -> Iterator[Step]:
    """The call as several calls of fewer items, boxes cut into boxes."""
    items = len(call.units)
    tokens = call.tiles.tokens * call.heads
    most = QUERIES_TOGETHER // tokens
    if call.slide is None:
        most = min(most, KEYS_TOGETHER // call.keys)
    most = max(1, most // sequences)
    if call.box is None:
        for first in range(0, items, most):
            yield Step(call, kv_heads, sequences, slice(first, min(items, first + most)), None)
        return
    units, run = call.box
    of_units, of_run = max(1, most // len(run)), min(most, len(run))
    if call.slide is not None and not _is_even(kv_heads[units.start : units.stop].tolist()):
        of_units = 1  # one by one they are used in place
    for unit in range(0, len(units), of_units):
        for tile in range(0, len(run), of_run):  # one round where there are several units
            box = units[unit : unit + of_units], run[tile : tile + of_run]
            first = unit * len(run) + tile
            yield Step(call, kv_heads, sequences, slice(first, first + len(box[0]) * len(box[1])), box)


def _is_even(numbers: list[int]) -> bool:
    return all(b - a == numbers[1] - numbers[0] for a, b in pairwise(numbers))
