"""Keys and values where they lie in memory, and the kept ones gathered."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ..checks.values import numbered
from ..pattern import BLOCK
from .pieces import KEYS_TOGETHER, Step, known


class Rows:
    """k or v, [batch, kv_heads, tokens, dim], seen as rows of memory."""

    def __init__(self, x: Tensor) -> None:
        if x.stride(3) != 1 or any(stride % x.shape[3] for stride in x.stride()[:3]):
            x = x.contiguous()
        self.strides = _, _, by_token = tuple(stride // x.shape[3] for stride in x.stride()[:3])
        count = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, self.strides, strict=False))
        self.rows = x.as_strided((count if x.numel() else 0, x.shape[3]), (x.shape[3], 1))
        # Every row that a block may begin in, and the rows that it then has: blocks overlap.
        starts = max(0, len(self.rows) - (BLOCK - 1) * by_token)
        self.blocks = self.rows.as_strided((starts, BLOCK, x.shape[3]), (x.shape[3], by_token * x.shape[3], 1))

    def kept(self, step: Step, first: int) -> tuple[Tensor, Tensor]:
        """(memory, indices) of a step's keys, for the sequences from `first` on: indices [batch * items * n] of blocks
        in memory [.., BLOCK, dim], or [batch * items * keys] of rows in [.., dim] where a block is cut short."""
        by_batch, by_head, by_token = self.strides

        def make() -> Tensor:
            batch = torch.arange(step.sequences, device="cpu")[:, None, None]
            return (batch * by_batch + step.heads[:, None] * by_head + step.columns * (BLOCK * by_token)).flatten()

        starts = known(step.starts, self.strides, make)
        if first:
            starts = starts + first * by_batch
        if not step.is_cut:
            return self.blocks, starts
        rows = starts[:, None] + torch.arange(BLOCK, device="cpu") * by_token
        return self.rows, rows.view(-1, step.columns.shape[1] * BLOCK)[:, : step.call.keys].flatten()

    def in_place(self, step: Step, first: int) -> Tensor | None:
        """A step's keys as a view, [*lead, keys, dim], where they lie evenly."""
        if step.even is None:
            return None
        by_batch, by_head, by_token = (stride * self.rows.shape[1] for stride in self.strides)
        by_column = BLOCK * by_token
        head, column, (batches, heads, columns), next_columns = step.even
        strides = batches * by_batch + heads * by_head + columns * by_column, next_columns * by_column, by_token, 1
        start = self.rows.storage_offset() + first * by_batch + head * by_head + column * by_column
        return self.rows.as_strided((*step.lead, step.call.keys, self.rows.shape[1]), strides, start)


class Pages(Rows):
    """A paged cache, [pages, kv_heads, page_size, dim], seen as the rows of the one request that has these pages."""

    def __init__(self, cache: Tensor, pages: Tensor) -> None:
        super().__init__(cache)
        self.count, self.page_size, self.pages = cache.shape[0], cache.shape[2], pages.long()

    def kept(self, step: Step, first: int) -> tuple[Tensor, Tensor]:
        by_page, by_head, by_token = self.strides
        tokens = (step.columns[:, :, None] * BLOCK + torch.arange(BLOCK, device="cpu")).flatten(1)[:, : step.call.keys]
        pages = self.pages[tokens // self.page_size]
        if pages.numel() and not 0 <= int(pages.min()) <= int(pages.max()) < self.count:
            raise ValueError(
                f"the caches have {numbered('page', self.count)}; block_table names page {int(pages.min())} "
                f"to {int(pages.max())} for keys that are read"
            )
        rows = pages * by_page + tokens % self.page_size * by_token
        return self.rows, (rows + step.heads[:, None] * by_head).flatten()

    def in_place(self, step: Step, first: int) -> Tensor | None:
        return None


class Gathered:
    """The kept keys and values of the sequences from `first` on, in memory that is used again and again: fresh memory
    is slow."""

    def __init__(self, keys: Rows, values: Rows, first: int) -> None:
        self.sources, self.first = (keys, values), first
        self.rooms = [x.rows.new_empty(0) for x in self.sources]

    def at(self, step: Step) -> list[Tensor]:
        """K and V of a step, both [*lead, keys, dim], until the next call. Not to be written to."""
        return [self._take(which, step) for which in range(2)]

    def _take(self, which: int, step: Step) -> Tensor:
        source = self.sources[which]
        if (view := source.in_place(step, self.first)) is not None:
            return view
        rows, index = source.kept(step, self.first)
        shape = len(index), *rows.shape[1:]
        numbers = prod(shape)
        if len(self.rooms[which]) < numbers:
            self.rooms[which] = rows.new_empty(max(numbers, KEYS_TOGETHER * shape[-1]))
        room = torch.index_select(rows, 0, index, out=self.rooms[which][:numbers].view(shape))
        return room.view(step.lead[0], -1, step.call.keys, shape[-1]).expand(*step.lead, -1, -1)
