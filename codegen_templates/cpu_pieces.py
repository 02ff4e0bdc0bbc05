"""Where the pieces lie: tiles of queries within their span, gathered keys within memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .cpu_plan import Call, Group, Span
from .pattern import BLOCK

KEYS_TOGETHER = 1 << 13  # gathered for one step
PAIRS_TOGETHER = 1 << 22  # of query and key in one step


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
    box: tuple[slice, slice] | None  # the units and tiles that these items are, if they are a box

    def read(self, x: Tensor) -> Tensor:
        """The items in a span's tensor [batch, units, heads, tokens, …]: [batch, items, heads, tokens, …], or [batch,
        units, tiles, heads, tokens, …] of a box, as a view."""
        tiles = self._tiles(x)
        return tiles[:, self._units, self._tile] if self.box is None else tiles[(slice(None), *self.box)]

    def write(self, x: Tensor, part: Tensor) -> None:
        """Put back what `read` gave, where it was not a view."""
        if self.box is None:
            self._tiles(x)[:, self._units, self._tile] = part

    def flat(self, part: Tensor) -> Tensor:
        """What `read` gave, as pieces take it: [batch * items, heads * tokens, …]."""
        shape = part.shape[4 if self.box is None else 5 :]
        return part.reshape(-1, self.call.heads * self.call.tiles.tokens, *shape)

    def kept(self) -> Tensor | None:
        """Which queries of an item attend which keys: bool [items or 1, heads * tokens, keys], or None for all."""
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
        """Add the items' part, [batch * items, keys, dim], to all keys, [batch, kv_heads, blocks, BLOCK * dim]."""
        _, kv_heads, count, _ = blocks.shape
        columns = self.call.columns[self.items]
        batch = torch.arange(self.batch.start, self.batch.stop)
        index = ((batch[:, None, None] * kv_heads + self.heads[:, None]) * count + columns).flatten()
        if missing := columns.shape[1] * BLOCK - self.call.keys:
            part = torch.nn.functional.pad(part, (0, 0, 0, missing))
        blocks.view(-1, blocks.shape[-1]).index_add_(0, index, part.reshape(len(index), -1))

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
    """Cut a call's items so that no step gathers too much: boxes into boxes."""
    sequences = batch.stop - batch.start
    pairs = call.keys * call.tiles.tokens * call.heads
    most = max(1, min(KEYS_TOGETHER // call.keys, PAIRS_TOGETHER // pairs) // sequences)
    items = len(call.units)
    if call.box is None:
        for first in range(0, items, most):
            yield Step(call, group.kv_heads, batch, slice(first, min(items, first + most)), None)
        return
    units, tiles = call.box
    if most >= len(tiles):
        for first in range(0, len(units), most // len(tiles)):
            some = units[first : first + most // len(tiles)]
            part = slice(first * len(tiles), (first + len(some)) * len(tiles))
            yield Step(call, group.kv_heads, batch, part, (_slice(some), _slice(tiles)))
        return
    for n, unit in enumerate(units):
        for first in range(0, len(tiles), most):
            some = tiles[first : first + most]
            start = n * len(tiles) + first
            box = slice(unit, unit + 1), _slice(some)
            yield Step(call, group.kv_heads, batch, slice(start, start + len(some)), box)


def _slice(run: range) -> slice:
    return slice(run.start, run.stop)


class Rows:
    """k or v, [batch, kv_heads, tokens, dim], seen as rows of memory."""

    def __init__(self, x: Tensor) -> None:
        if x.stride(3) != 1 or any(stride % x.shape[3] for stride in x.stride()[:3]):
            x = x.contiguous()
        self.strides = [stride // x.shape[3] for stride in x.stride()[:3]]
        count = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, self.strides, strict=False))
        self.rows = x.as_strided((count if x.numel() else 0, x.shape[3]), (x.shape[3], 1))
        self.gathered = x.new_empty(0, x.shape[3])  # used again and again: fresh memory is slow

    def at(self, step: Step) -> Tensor:
        """The rows of a step's keys: [batch * items, keys, dim], in memory that the next call takes over."""
        index = self.index(torch.arange(step.batch.start, step.batch.stop), step.heads, step.tokens).flatten()
        if len(self.gathered) < len(index):
            self.gathered = self.gathered.new_empty(max(len(index), KEYS_TOGETHER), self.rows.shape[1])
        rows = torch.index_select(self.rows, 0, index, out=self.gathered[: len(index)])
        return rows.view(-1, step.call.keys, rows.shape[1])

    def index(self, batch: Tensor, heads: Tensor, tokens: Tensor) -> Tensor:
        """Which rows hold the tokens [items, keys] of the KV heads [items]: [batch, items, keys]."""
        by_batch, by_head, by_token = self.strides
        return tokens * by_token + (heads * by_head)[:, None] + (batch * by_batch)[:, None, None]


class Pages(Rows):
    """A paged cache, [pages, kv_heads, page_size, dim], seen as the rows of one request."""

    def __init__(self, cache: Tensor) -> None:
        super().__init__(cache)
        self.page_size = cache.shape[2]
        self.pages = torch.empty(0, dtype=torch.int64)

    def of(self, pages: Tensor) -> Pages:
        """The request whose pages these are."""
        self.pages = pages.long()
        return self

    def index(self, batch: Tensor, heads: Tensor, tokens: Tensor) -> Tensor:
        by_page, by_head, by_token = self.strides
        rows = self.pages[tokens // self.page_size] * by_page + tokens % self.page_size * by_token
        return (rows + (heads * by_head)[:, None])[None]
