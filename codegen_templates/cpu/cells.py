"""How the rows of a segment keep their columns: one number a block (a cell). Columns are taken from it call by call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from ..pattern import BLOCK, CAUSAL, CLASSES
from ..rules.masks import keeps, keeps_blocks, touches_blocks
from .attend import Mask

# A cell: not kept; kept whole; whole, but the last block's tokens end early; the diagonal of a causal row. From OTHER
# on, kept in part: equal numbers have equal masks.
NONE, WHOLE, TAIL, DIAGONAL, OTHER = range(5)
FARTHEST = 4096 // BLOCK  # columns back that a run is looked for


@dataclass(frozen=True)
class Tiles:
    """Query tiles of equal size, one after another in a span."""

    first: int  # token, counted from the span's first one
    tokens: int  # of a tile
    count: int
    row: int  # in which the first tile begins, counted from the cells' first row
    rows: int  # of a tile
    skip: int  # tokens of that row which lie before the tile


def tiles(size: int, first: int, last: int, begin: int) -> Iterator[Tiles]:
    """Cut tokens begin..last-1 of the span from `first` on at the multiples of `size`: a cut tile, the whole ones
    together, a cut tile."""
    head, tail = min(last, -(-begin // size) * size), max(begin, last // size * size)
    if head > tail:
        head = tail = last
    for start, stop in ((begin, head), (head, tail), (tail, last)):
        if start < stop:
            tokens = min(size, stop - start)
            row = start // BLOCK
            rows = -(-(start + tokens) // BLOCK) - row
            yield Tiles(start - first, tokens, (stop - start) // tokens, row - first // BLOCK, rows, start % BLOCK)


@dataclass
class Cells:
    """The cells of some classes in one span."""

    classes: list[int]
    first_row: int
    first_column: int
    cells: Tensor  # int64 [classes, rows, columns]
    cut_column: int  # which ends early, or -1
    cut_keys: int  # by so many

    @staticmethod
    def of(classes: list[int], first: int, last: int, kv_start: int, kv_len: int) -> Cells:
        """The cells of query tokens first..last-1 and the keys that are present."""
        rows = torch.arange(first // BLOCK, -(-last // BLOCK), device="cpu")
        stop = -(-(kv_start + kv_len) // BLOCK)
        stop = min(stop, int(rows[-1]) + 1) if CAUSAL else stop
        columns = torch.arange(kv_start // BLOCK, max(stop, kv_start // BLOCK), device="cpu")
        cells = torch.stack([_cells(klass, rows[:, None], columns[None, :]) for klass in classes])
        cut_column, cut_keys = -1, -kv_len % BLOCK
        if cut_keys and stop > (kv_start + kv_len) // BLOCK:
            cut_column = len(columns) - 1
            cells[..., -1][cells[..., -1] == WHOLE] = TAIL
        return Cells(classes, int(rows[0]), kv_start // BLOCK, cells, cut_column, cut_keys)

    def dense_rows(self) -> int:
        """The number of first rows that keep every column up to their own. The first row is that of the first
        column."""
        kept = (self.cells == WHOLE) | (self.cells == DIAGONAL)
        later = torch.ones(kept.shape[1:], dtype=torch.bool, device="cpu").triu_(1)
        return int((kept | later).all(2).all(0).long().cumprod(0).sum())

    def run(self, part: Tiles, lengths: range, whole: bool) -> tuple[Tensor, Tensor] | None:
        """The longest run of columns that every tile of every class keeps alike, seen from its own column, and whole if
        asked for: int64 [tiles, n], and the first tile's cells [1, rows, n]; None if n is not one of `lengths`. They
        are kept no longer."""
        cells = self._of(part)
        own = part.row + torch.arange(part.count, device="cpu") * part.rows + self.first_row - self.first_column
        last = (self.cells.shape[2] if self.cut_column < 0 else self.cut_column) - int(own[-1])
        first = max(-int(own[0]), -FARTHEST)
        offsets = torch.arange(
            first, max(first, last), device="cpu"
        )  # none where the columns end farther back than that
        columns = own[:, None] + offsets
        index = columns[None, :, None].expand(*cells.shape[:3], -1)
        marks = cells.gather(-1, index)
        shown = marks[:1, 0]
        alike = (marks == shown).flatten(0, 2).all(0)
        alike &= (shown[0] == WHOLE).all(0) if whole else (shown[0] != NONE).any(0)
        run = max(_runs(alike.tolist()), key=len, default=range(0))
        if len(run) not in lengths:
            return None
        at = slice(run.start, run.stop)
        cells.scatter_(-1, index[..., at], NONE)
        return columns[:, at], shown[..., at]

    def share(self, part: Tiles, least: int) -> Tensor:
        """The columns that all rows of a tile keep whole, if they are `least` or more: bool [classes, tiles, columns].
        They are kept no longer."""
        cells = self._of(part)
        shared = (cells == WHOLE).all(2)
        shared &= shared.sum(-1, keepdim=True) >= least
        cells[shared[:, :, None].expand_as(cells)] = NONE
        return shared

    def rest(self, part: Tiles) -> Tensor:
        """All cells of these tiles: [classes, tiles, rows, columns]."""
        return self._of(part)

    def _of(self, part: Tiles) -> Tensor:
        rows = self.cells[:, part.row : part.row + part.count * part.rows]
        return rows.unflatten(1, (part.count, part.rows))

    def kinds(self, cells: Tensor, row: Tensor, column: Tensor, klass: Tensor, part: Tiles, keys: int) -> Kinds | None:
        """The masks of tiles' cells [items, rows, n], which stand in these rows and columns and are of these classes;
        None when all are whole."""
        if ((cells == WHOLE) | (cells == TAIL)).all():
            return None
        known, kind_of = torch.unique(cells, return_inverse=True)
        masks = []
        for kind in known.tolist():
            at = (cells == kind).flatten().nonzero()[0]
            i, j, c = (int(x.expand_as(cells).flatten()[at]) for x in (row, column, klass))
            masks.append(self._mask(kind, i + self.first_row, j + self.first_column, self.classes[c]))
        return Kinds(torch.stack(masks), kind_of, part.skip, part.tokens, keys)

    def _mask(self, kind: int, i: int, j: int, klass: int) -> Tensor:
        if kind <= TAIL:
            return torch.full((BLOCK, BLOCK), kind != NONE, device="cpu")
        tokens = torch.arange(BLOCK, device="cpu")
        return keeps(klass, (i * BLOCK + tokens)[:, None], (j * BLOCK + tokens)[None, :])


@dataclass(frozen=True)
class Kinds:
    """The masks of some tiles, put together from those of their blocks."""

    masks: Tensor  # bool [kinds, BLOCK, BLOCK]
    of: Tensor  # [items, or 1 for all alike, rows, n]: each block's kind
    skip: int  # query tokens of the first row that are not the tile's
    tokens: int
    keys: int
    made: dict[tuple[torch.dtype, int], Mask] = field(default_factory=dict, repr=False, compare=False)

    def mask(self, dtype: torch.dtype, items: slice, heads: int, sequences: int) -> Mask:
        """For these items of some sequences: [sequences * items or 1, 1, heads * tokens, keys]."""
        if len(self.of) > 1:
            return Mask.of(self._kept(self.of[items], heads).repeat(sequences, 1, 1), dtype)
        if (dtype, heads) not in self.made:
            self.made[dtype, heads] = Mask.of(self._kept(self.of, heads), dtype)
        return self.made[dtype, heads]

    def _kept(self, of: Tensor, heads: int) -> Tensor:
        kept = self.masks[of].transpose(2, 3).flatten(3, 4).flatten(1, 2)  # [items, rows * BLOCK, n * BLOCK]
        return kept[:, self.skip : self.skip + self.tokens, : self.keys].repeat(1, heads, 1)


def _runs(flags: list[bool]) -> Iterator[range]:
    """The runs of True, as ranges."""
    at = 0
    for flag, same in groupby(flags):
        stop = at + len(list(same))
        if flag:
            yield range(at, stop)
        at = stop


def _cells(klass: int, i: Tensor, j: Tensor) -> Tensor:
    """Cells of rows i [rows, 1] and columns j [1, columns], ignoring the length."""
    window, sink = CLASSES[klass]["window"], CLASSES[klass]["sink"]
    whole = keeps_blocks(klass, i, j)
    part = touches_blocks(klass, i, j)
    cells = torch.where(whole, WHOLE, NONE)
    bands = CLASSES[klass]["bands"]
    if window or sink or bands:
        # The mask depends on the distance, as far as the window and the diagonal see it, and on the sink's share.
        reach = 2 + sum(-(-tokens // BLOCK) for tokens in window or ())
        reach += max([0, *(-(-(high or low) // BLOCK) for low, high in bands)])
        distance = (i - j).clamp(-reach, reach) + reach
        sunk = (sink - j * BLOCK).clamp(0, BLOCK)
        kind = (distance * (BLOCK + 1) + sunk) * len(CLASSES) + klass  # of no other class, whose reach is its own
        cells = torch.where(part & ~whole, OTHER + kind, cells)
    if CAUSAL:
        cells = torch.where(i < j, NONE, cells)
        cells = torch.where((i == j) & whole, DIAGONAL, cells)
    return cells
