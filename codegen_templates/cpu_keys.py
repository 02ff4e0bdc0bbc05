"""Keys and values where they lie in memory, and the kept ones brought together."""

from __future__ import annotations

import torch
from torch import Tensor

from .cpu_pieces import KEYS_TOGETHER, Step
from .pattern import BLOCK


class Rows:
    """k or v, [batch, kv_heads, tokens, dim], seen as rows of memory."""

    def __init__(self, x: Tensor) -> None:
        if x.stride(3) != 1 or any(stride % x.shape[3] for stride in x.stride()[:3]):
            x = x.contiguous()
        self.strides = by_batch, by_head, by_token = tuple(stride // x.shape[3] for stride in x.stride()[:3])
        count = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, self.strides, strict=False))
        self.rows = x.as_strided((count if x.numel() else 0, x.shape[3]), (x.shape[3], 1))
        self.in_blocks = by_token == 1 and not (by_batch % BLOCK or by_head % BLOCK or len(self.rows) % BLOCK)

    def index(self, step: Step) -> Tensor:
        """Which rows hold a step's keys: [batch * items * keys]; or which blocks of rows, if it takes blocks."""
        by_batch, by_head, by_token = self.strides
        batch = torch.arange(step.batch.start, step.batch.stop)
        first = batch[:, None, None] * by_batch + step.heads[:, None] * by_head
        if self.takes_blocks(step):
            return (first // BLOCK + step.columns).flatten()
        return (first + step.tokens * by_token).flatten()

    def in_place(self, step: Step) -> Tensor | None:
        """A step's keys as a view, [items, 1, keys, dim], where they lie evenly."""
        if step.call.slide is None or step.batch.stop - step.batch.start > 1:
            return None
        dim = self.rows.shape[1]
        by_batch, by_head, by_token = self.strides
        first = step.batch.start * by_batch + int(step.heads[0]) * by_head + int(step.columns[0, 0]) * BLOCK * by_token
        strides = step.call.slide * BLOCK * by_token * dim, 0, by_token * dim, 1
        shape = len(step.columns), 1, step.call.keys, dim
        return self.rows.as_strided(shape, strides, self.rows.storage_offset() + first * dim)

    def takes_blocks(self, step: Step) -> bool:
        return self.in_blocks and step.call.keys == step.columns.shape[1] * BLOCK


class Pages(Rows):
    """A paged cache, [pages, kv_heads, page_size, dim], seen as the rows of the one request that has these pages."""

    def __init__(self, cache: Tensor, pages: Tensor) -> None:
        super().__init__(cache)
        self.page_size, self.pages, self.in_blocks = cache.shape[2], pages.long(), False

    def in_place(self, step: Step) -> Tensor | None:
        return None

    def index(self, step: Step) -> Tensor:
        by_page, by_head, by_token = self.strides
        rows = self.pages[step.tokens // self.page_size] * by_page + step.tokens % self.page_size * by_token
        return (rows + step.heads[:, None] * by_head).flatten()


class Gathered:
    """The kept keys and values in memory that is used again and again: fresh memory is slow."""

    def __init__(self, keys: Rows, values: Rows) -> None:
        self.sources = keys, values
        self.rooms = [x.rows.new_empty(0) for x in self.sources]

    def at(self, step: Step) -> list[Tensor]:
        """K and V of a step, both [batch * items, 1, keys, dim], until the next call. Not to be written to."""
        keys, values = self.sources
        if (k := keys.in_place(step)) is not None and (v := values.in_place(step)) is not None:
            return [k, v]
        index = keys.index(step)
        is_same = keys.strides == values.strides and keys.in_blocks == values.in_blocks
        return [self._take(0, step, index), self._take(1, step, index if is_same else values.index(step))]

    def _take(self, which: int, step: Step, index: Tensor) -> Tensor:
        source = self.sources[which]
        rows, dim = source.rows, source.rows.shape[1]
        if source.takes_blocks(step):
            rows = rows.view(-1, BLOCK * dim)
        numbers = len(index) * rows.shape[1]
        if len(self.rooms[which]) < numbers:
            self.rooms[which] = rows.new_empty(max(numbers, KEYS_TOGETHER * dim))
        room = self.rooms[which][:numbers].view(len(index), rows.shape[1])
        return torch.index_select(rows, 0, index, out=room).view(-1, 1, step.call.keys, dim)
