"""How a sequence is cut for the CPU: which query tokens meet which blocks in one dense attention call.

A sequence's first rows, as far as they keep everything, are one causal call. Then a row's columns are peeled off.
Those of a window go with the tiles, at one distance from all of them: their keys are used where they lie, of a narrow
window by the smallest tiles, of a wide one by larger tiles, whose rows share most of it. The others are peeled from
coarse to fine: tiles of many rows take the columns that all of their rows keep whole, as big matrix products without a
mask, smaller tiles what their own rows share of the rest. The smallest take what is left, masked where a block is kept
in part or by some of their rows only. So far progressions, windows and dense heads meet as big products, whatever rule
they come from, and next to nothing is multiplied that is not kept.

Why it is not simpler: to gather each row's columns, as many as the longest row near it has, and to mask the rest takes
2.8 to 5.3 times as long forward in fp32, 1.9 to 2.3 times in bf16, and 1.5 to 2.5 times backward. Measured on the
patterns of `python -m benchmarks cpu`, 2048 to 8192 tokens, backward 2048 and 4096: both in turn in one process on one
thread, the fastest of five each.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..pattern import BLOCK, CAUSAL, CLASS_OF
from ..rules.heads import kv_head
from .cells import NONE, Cells, Kinds, Tiles, tiles
from .workers import work

LEVELS = tuple(sorted({max(tokens, BLOCK) for tokens in (1024, 256, 64)}, reverse=True))  # tokens a query tile
SPAN = 4096  # tokens that are looked at together
LEAST_SHARED = max(1, 64 // BLOCK)  # columns: fewer than these are left to the next level
# Columns that go with the tiles, so many:
NARROW = range(max(2, 128 // BLOCK), 512 // BLOCK + 1)  # of the last level: more are cheaper in larger tiles
WIDE = range(256 // BLOCK, 1 << 30)  # of the others
LEAST_TILES = 4  # with a band
MOST_BOXES = 3
TOGETHER = 16384  # query tokens of a span, counted over heads and sequences, that share a call
ALONE = 4096  # query tokens, counted over heads: where there are more, threads share the heads


@dataclass(frozen=True)
class Call:
    """One attention call: every item is one unit's tile of query tokens, with its own columns."""

    tiles: Tiles
    heads: int  # of a unit
    units: Tensor  # [items]
    tile: Tensor  # [items]
    box: tuple[range, range] | None  # the units and tiles whose pairs, in order, are the items, if they are
    columns: Tensor  # [items, n], counted from the first column present
    keys: int  # so many of the n * BLOCK keys exist
    kinds: Kinds | None = None  # of masks; None: nothing is masked
    causal: bool = False  # a query attends the keys up to its own: one tile, keys and queries begin together
    steps: dict[int, tuple[Any, ...]] = field(default_factory=dict, repr=False, compare=False)  # see `steps`

    @functools.cached_property
    def slide(self) -> int | None:
        """The number of columns by which each tile's run of columns lies beyond that of the tile before, if every tile
        has such a run, the same for every unit. Then keys are used in place instead of being gathered."""
        if self.box is None:
            return None
        units, run = self.box
        slide = int(self.columns[1, 0] - self.columns[0, 0]) if len(run) > 1 else 0
        first = self.columns[0, 0] + torch.arange(len(run), device="cpu") * slide
        runs = (first[:, None] + torch.arange(self.columns.shape[1], device="cpu")).repeat(len(units), 1)
        return slide if torch.equal(runs, self.columns) else None


@dataclass(frozen=True)
class Segment:
    """Consecutive query tokens, and the calls that make their output."""

    first: int  # counted from the first query token
    tokens: int
    first_calls: tuple[Call, ...]  # no token of a unit is in two of them
    more_calls: tuple[Call, ...]
    covered: bool  # whether every token of every unit is in the first calls


@dataclass(frozen=True)
class Group:
    """Units, each the query heads of one KV head that share a class, and the spans of their sequence."""

    heads: tuple[tuple[int, ...], ...]  # [unit][heads of the unit], counted from the first head present
    kv_heads: Tensor  # [units]
    spans: tuple[Segment, ...] = field(repr=False)


@functools.lru_cache(maxsize=32)
def plan(
    layer: int,
    heads: int,
    head_offset: int,
    q_start: int,
    q_len: int,
    kv_start: int,
    kv_len: int,
    without: tuple[int, ...] = (),
) -> tuple[Group, ...]:
    """The groups of these heads (except `without`) with their calls. Kept for the next layer and the next step."""

    def group(units: list[tuple[int, int, tuple[int, ...]]]) -> Group:
        spans = tuple(_spans([klass for _, klass, _ in units], len(units[0][2]), q_start, q_len, kv_start, kv_len))
        kv_heads = torch.tensor([kv_head for kv_head, _, _ in units], device="cpu")
        return Group(tuple(heads for _, _, heads in units), kv_heads, spans)

    return tuple(work(group, list(_units(layer, [n for n in range(heads) if n not in without], head_offset, q_len))))


def _units(
    layer: int, heads: list[int], head_offset: int, q_len: int
) -> Iterator[list[tuple[int, int, tuple[int, ...]]]]:
    """Lists of units (KV head, class, query heads) of equal size, few enough to work on together."""
    units: dict[tuple[int, int], list[int]] = {}
    for head in heads:
        units.setdefault((kv_head(head, head_offset), CLASS_OF[layer][head + head_offset]), []).append(head)
    for size in sorted({len(unit) for unit in units.values()}):
        alike = [(shared, klass, tuple(unit)) for (shared, klass), unit in units.items() if len(unit) == size]
        step = len(alike)
        if len(heads) * q_len > ALONE:
            step = max(1, min(TOGETHER // (min(q_len, SPAN) * size), -(-step // torch.get_num_threads())))
        yield from (alike[n : n + step] for n in range(0, len(alike), step))


def _spans(
    unit_classes: list[int], heads: int, q_start: int, q_len: int, kv_start: int, kv_len: int
) -> Iterator[Segment]:
    """The calls for SPAN queries at a time, in the order that the module's docstring tells."""
    classes = sorted(set(unit_classes))
    class_of = torch.tensor([classes.index(klass) for klass in unit_classes], device="cpu")
    for base in range(q_start // SPAN * SPAN, q_start + q_len, SPAN) if q_len else ():
        first, last = max(q_start, base), min(q_start + q_len, base + SPAN)
        cells = Cells.of(classes, first, last, kv_start, kv_len)
        calls, more = [], []
        begin = first
        if CAUSAL and kv_len and first == kv_start and (rows := cells.dense_rows()) > 1:
            begin = min(first + rows * BLOCK, last, kv_start + kv_len)
            calls.append(_dense(len(unit_classes), begin - first, heads))
        bands = {part: _band(cells, class_of, part, heads, NARROW) for part in tiles(LEVELS[-1], first, last, begin)}
        large = [part for size in LEVELS[:-1] for part in tiles(size, first, last, begin)]
        for part in large:
            more += _band(cells, class_of, part, heads, WIDE, whole=True)
        for part in large:
            more += _shared(cells, class_of, part, heads)
        for part, band in bands.items():
            (more if band else calls).extend(_rest(cells, class_of, part, heads))
            calls += band
        covered = sum(len(call.units) * call.tiles.tokens for call in calls) == (last - first) * len(unit_classes)
        yield Segment(first - q_start, last - first, tuple(calls), tuple(more), covered)


def _dense(units: int, tokens: int, heads: int) -> Call:
    """The call for a sequence's first tokens, which keep all of each other."""
    rows = -(-tokens // BLOCK)
    columns = torch.arange(rows, device="cpu").expand(units, -1)
    one = torch.zeros(units, dtype=torch.int64, device="cpu")
    box = range(units), range(1)
    return Call(
        Tiles(0, tokens, 1, 0, rows, 0),
        heads,
        torch.arange(units, device="cpu"),
        one,
        box,
        columns,
        tokens,
        causal=True,
    )


def _band(cells: Cells, class_of: Tensor, part: Tiles, heads: int, lengths: range, whole: bool = False) -> list[Call]:
    """The call for the columns that go with the tiles, at the same distance from each: their keys are used in place.
    None if their number is none of `lengths`, or the tiles are few."""
    if part.count < LEAST_TILES or (run := cells.run(part, lengths, whole)) is None:
        return []
    columns, marks = run
    units = len(class_of)
    box = range(units), range(part.count)
    pairs = torch.cartesian_prod(torch.arange(units, device="cpu"), torch.arange(part.count, device="cpu")).view(-1, 2)
    row = part.row + torch.arange(part.rows, device="cpu")[:, None]
    keys = columns.shape[1] * BLOCK
    kinds = cells.kinds(marks, row, columns[:1, None], class_of[:1, None, None], part, keys)
    return [Call(part, heads, *pairs.T, box, columns.repeat(units, 1), keys, kinds)]


def _shared(cells: Cells, class_of: Tensor, part: Tiles, heads: int) -> Iterator[Call]:
    """Calls for the columns that all rows of a tile keep whole."""
    shared = cells.share(part, LEAST_SHARED)[class_of]  # [units, tiles, columns]
    counts = shared.sum(-1)
    for count in counts.unique().tolist():
        for units, tile, box in _boxes(counts == count) if count else ():
            columns = shared[units, tile].nonzero()[:, 1].view(-1, count)
            yield Call(part, heads, units, tile, box, columns, count * BLOCK)


def _rest(cells: Cells, class_of: Tensor, part: Tiles, heads: int) -> Iterator[Call]:
    """Calls for all columns that are left, with masks where not every row keeps them whole."""
    left = cells.rest(part)  # [classes, tiles, rows, columns]
    kept = (left != NONE).any(2)
    counts = kept.sum(-1)  # [classes, tiles]
    for count in counts.unique().tolist():
        for some, alike in _alike(left, kept, counts == count, cells.cut_column) if count else ():
            for units, tile, box in _boxes(some[class_of], keep_whole=not alike):
                columns = kept[class_of[units], tile].nonzero()[:, 1].view(-1, count)
                shown = slice(0, 1) if alike else slice(None)
                marks = left[class_of[units], tile][shown].gather(-1, columns[shown, None].expand(-1, part.rows, -1))
                row = part.row + tile[shown, None, None] * part.rows + torch.arange(part.rows, device="cpu")[:, None]
                keys = count * BLOCK - (cells.cut_keys if columns[0, -1] == cells.cut_column else 0)
                kinds = cells.kinds(marks, row, columns[shown, None], class_of[units][shown, None, None], part, keys)
                yield Call(part, heads, units, tile, box, columns, keys, kinds)


def _alike(left: Tensor, kept: Tensor, chosen: Tensor, cut_column: int) -> Iterator[tuple[Tensor, bool]]:
    """Cut the chosen [classes, tiles] into those with equal masks, and True; where these would be many calls, into
    those whose keys end alike, and False."""
    classes, tile = chosen.nonzero(as_tuple=True)
    columns = kept[classes, tile].nonzero()[:, 1].view(len(tile), -1)
    kinds = left[classes, tile].gather(-1, columns[:, None].expand(-1, left.shape[2], -1)).flatten(1)
    is_cut = columns[:, -1] == cut_column
    for cut in is_cut.unique():
        same = (is_cut == cut).nonzero()[:, 0]
        patterns, pattern_of = torch.unique(kinds[same], dim=0, return_inverse=True)
        alike = len(patterns) == 1 or 4 * len(patterns) <= len(same)
        for pattern in range(len(patterns)) if alike else (None,):
            items = same if pattern is None else same[pattern_of == pattern]
            some = torch.zeros_like(chosen)
            some[classes[items], tile[items]] = True
            yield some, alike


def _boxes(chosen: Tensor, keep_whole: bool = False) -> Iterator[tuple[Tensor, Tensor, tuple[range, range] | None]]:
    """Cut the chosen [units, tiles] into a few boxes, in which all tiles of a run are chosen for all units of a run:
    their memory is then used in place. Where that would be many, or `keep_whole` is set, take them in one, without."""
    boxes: list[tuple[range, range]] = []
    for unit, row in enumerate(chosen.tolist()):
        run = range(row.index(True), len(row) - row[::-1].index(True)) if any(row) else range(0)
        if sum(row) != len(run):
            keep_whole = True
        elif boxes and boxes[-1][0].stop == unit and boxes[-1][1] == run:
            boxes[-1] = range(boxes[-1][0].start, unit + 1), run
        elif run:
            boxes.append((range(unit, unit + 1), run))
    if keep_whole or len(boxes) > MOST_BOXES:
        yield *chosen.nonzero(as_tuple=True), None
        return
    for units, run in boxes:
        pairs = torch.cartesian_prod(torch.tensor(units, device="cpu"), torch.tensor(run, device="cpu")).view(-1, 2)
        yield pairs[:, 0], pairs[:, 1], (units, run)
