"""Write a layout out as a table: for every row, the columns of which it keeps any token pair."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from patterncc.debug import traced
from patterncc.ir.bitmap import CELLS, bitmap, table_of_bitmaps
from patterncc.ir.closed import ClosedForm
from patterncc.ir.layout import KEY, Layout
from patterncc.ir.runs import Run, hits, table_of_runs
from patterncc.ir.table import Table, check_size
from patterncc.ir.tokens import touched
from patterncc.passes.closed_form import closed_form


@traced
def lower_table(
    layout: Layout, *, causal: bool, block: int, rows: int, columns: int, tokens: int | None = None
) -> Table:
    """The columns of rows 0..rows-1, in rising order: of whole blocks, or of a sequence of so many `tokens`.

    Of a sequence whose last block is ragged, rows and columns count it: the first token of each block is enough to
    decide whether any token pair is kept, but for bands of distances in tokens, which may reach its later tokens only.
    So only of these a column may be left out where `tokens` are given.

    >>> print(lower_table(Layout.parse("d<2 | j%4==1"), causal=True, block=64, rows=8, columns=8))
    0: 0
    1: 0 1
    2: 1 2
    3: 1-3
    4: 1 3 4
    5: 1 4 5
    6: 1 5 6
    7: 1 5-7
    """
    check_size(rows, columns)
    table = _of_blocks(touched(layout, causal=causal, block=block), causal, rows, columns)
    here = 0 if tokens is None else tokens % block
    return _cut(table, layout, causal, block, here) if here and layout.bands else table


def _of_blocks(layout: Layout, causal: bool, rows: int, columns: int) -> Table:
    form = closed_form(layout, causal)
    if form:
        return table_of_runs(_runs(form, causal, rows, columns), rows)
    return table_of_bitmaps(_bitmaps(layout, causal, rows, columns))


def _cut(table: Table, layout: Layout, causal: bool, block: int, here: int) -> Table:
    """A square table without what its last row and its last column keep only at tokens past their first `here`."""

    def kept(rows: range, columns: range, **there: int) -> NDArray[np.bool_]:
        return bitmap(touched(layout, causal=causal, block=block, **there), rows, columns, causal=causal)

    last = table.rows - 1
    every, only = range(table.rows), range(last, table.rows)
    keep = np.ones(table.entries, bool)
    keep[table.pointers[last] :] = kept(only, every, queries=here)[0, table.row(last)]
    column = kept(every, only, keys=here)[:, 0]
    column[last] = kept(only, only, queries=here, keys=here)[0, 0]
    entries = np.flatnonzero(table.columns == last)
    keep[entries] = column[np.searchsorted(table.pointers, entries, "right") - 1]
    pointers = np.concatenate(([0], np.cumsum(keep)))[table.pointers]
    return Table(pointers, table.columns[keep])


def _bitmaps(layout: Layout, causal: bool, rows: int, columns: int) -> Iterator[NDArray[np.bool_]]:
    """Rows by the chunk, no wider than they can be."""
    height = max(1, CELLS // max(1, columns))
    for low in range(0, rows, height):
        high = min(low + height, rows)
        yield bitmap(layout, range(low, high), range(min(columns, high) if causal else columns), causal=causal)


def _runs(form: ClosedForm, causal: bool, rows: int, columns: int) -> list[Run]:
    """The sink, then the bands from the farthest distance to the nearest: columns rise. A band ends before the chunk,
    which is the last run (the bands within it lie inside)."""
    i = np.arange(rows)
    limit = np.minimum(i + 1, columns) if causal else np.full(rows, columns)
    sink = min(form.sink, columns)
    runs = [Run(np.arange(sink), 0 * i, limit)]
    for band in reversed(form.bands):
        low = np.maximum(sink, i - band.d_to + 1) if band.d_to is not None else np.full(rows, sink)
        high = np.minimum(limit, i - band.d_from + 1) if band.d_from is not None else limit
        if form.chunk:
            high = np.minimum(high, i // form.chunk * form.chunk)
        if band.anchor == KEY:
            runs.append(Run(hits(band, 0, columns), low, high))
        else:
            runs.append(Run(-hits(band, 1 - columns, rows)[::-1], low, high, shift=i))  # j = i - d
    if form.chunk:
        runs.append(Run(np.arange(columns), np.maximum(sink, i // form.chunk * form.chunk), limit))
    return runs
