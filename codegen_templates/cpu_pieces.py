"""Where the pieces lie: tiles of queries within their span, gathered keys within memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .cpu_plan import Call, Group, Span
from .pattern import BLOCK

KEYS_TOGETHER = 1 << 16  # gathered for one step
PAIRS_TOGETHER = 1 << 26  # of query and key in one step


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

    def read(self, x: Tensor) -> Tensor:
        """What a span's tensor [batch, units, heads, tokens, …] holds for the items: [batch * items, heads * tokens, …]."""
        tiles = self._tiles(x)
        part = tiles.flatten(1, 2) if self._is_all else tiles[:, self._units, self._tile]
        return part.flatten(2, 3).flatten(0, 1)

    def write(self, x: Tensor, part: Tensor) -> None:
        """Put back in x what has the form that `read` gives."""
        tiles = self._tiles(x)
        if self._is_all:
            tiles.copy_(part.view(tiles.shape))
        else:
            part = part.to(x.dtype).view(tiles.shape[0], len(self._units), *tiles.shape[3:])
            tiles[:, self._units, self._tile] = part

    def kept(self) -> Tensor | None:
        """Which pairs of a query and a key of an item attend: bool [items or 1, heads * tokens, keys], or None for all."""
        call, tiles = self.call, self.call.tiles
        if call.masks is None or call.mask_of is None:
            return None
        mask_of = call.mask_of if len(call.mask_of) == 1 else call.mask_of[self.items]
        kept = call.masks[mask_of].transpose(2, 3).flatten(3, 4).flatten(1, 2)  # [items, rows * BLOCK, n * BLOCK]
        kept = kept[:, tiles.skip : tiles.skip + tiles.tokens, : call.keys].repeat(1, call.heads, 1)
        return kept if len(kept) == 1 else kept.repeat(self.batch.stop - self.batch.start, 1, 1)

    @cached_property
    def tokens(self) -> Tensor:
        """The items' keys: [items, keys]."""
        first = self.call.columns[self.items] * BLOCK
        return (first[:, :, None] + torch.arange(BLOCK)).flatten(1, 2)[:, : self.call.keys]

    @cached_property
    def heads(self) -> Tensor:
        """The items' KV heads: [items]."""
        return self.kv_heads[self._units]

    def add_keys(self, blocks: Tensor, part: Tensor) -> None:
        """Add what is for the items' keys, [batch * items, keys, dim], to blocks [batch, kv_heads, blocks, BLOCK * dim]."""
        _, kv_heads, count, _ = blocks.shape
        columns = self.call.columns[self.items]
        batch = torch.arange(self.batch.start, self.batch.stop)
        index = ((batch[:, None, None] * kv_heads + self.heads[:, None]) * count + columns).flatten()
        if missing := columns.shape[1] * BLOCK - self.call.keys:
            part = torch.nn.functional.pad(part, (0, 0, 0, missing))
        blocks.view(-1, blocks.shape[-1]).index_add_(0, index, part.reshape(len(index), -1))

    @property
    def _is_all(self) -> bool:
        return self.call.in_order and len(self._units) == len(self.call.units)

    @cached_property
    def _units(self) -> Tensor:
        return self.call.units[self.items]

    @cached_property
    def _tile(self) -> Tensor:
        return self.call.tile[self.items]

    def _tiles(self, x: Tensor) -> Tensor:
        """x cut into the call's tiles: [batch, units, tiles, heads, tokens, …]."""
        tiles = self.call.tiles
        part = x[:, :, :, tiles.first : tiles.first + tiles.count * tiles.tokens]
        return part.unflatten(3, (tiles.count, tiles.tokens)).movedim(3, 2)


def steps(call: Call, group: Group, batch: slice) -> Iterator[Step]:
    """Cut a call's items so that no step gathers too much."""
    sequences = batch.stop - batch.start
    pairs = call.keys * call.tiles.tokens * call.heads
    most = min(KEYS_TOGETHER // call.keys, PAIRS_TOGETHER // pairs) // sequences
    items = len(call.units)
    for first in range(0, items, max(1, most)):
        yield Step(call, group.kv_heads, batch, slice(first, min(items, first + max(1, most))))


class Rows:
    """k or v, [batch, kv_heads, tokens, dim], seen as rows of memory."""

    def __init__(self, x: Tensor) -> None:
        if x.stride(3) != 1 or any(stride % x.shape[3] for stride in x.stride()[:3]):
            x = x.contiguous()
        self.strides = [stride // x.shape[3] for stride in x.stride()[:3]]
        self.count = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, self.strides, strict=False))
        self.rows = x.as_strided((self.count, x.shape[3]), (x.shape[3], 1))

    def at(self, step: Step) -> Tensor:
        """The rows of a step's keys: [batch * items, keys, dim]."""
        by_batch, by_head, by_token = self.strides
        items = step.tokens * by_token + (step.heads * by_head)[:, None]
        batch = torch.arange(step.batch.start, step.batch.stop) * by_batch
        index = items + batch[:, None, None]
        return self.rows.index_select(0, index.flatten()).view(-1, items.shape[1], self.rows.shape[1])
