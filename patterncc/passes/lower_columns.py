"""Write the inverse index map as a table: for every column, the rows that keep any of its token pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from patterncc.debug import traced
from patterncc.ir.bitmap import CELLS, bitmap, draw_rows, table_of_bitmaps
from patterncc.ir.closed import ClosedForm
from patterncc.ir.layout import KEY, Layout
from patterncc.ir.runs import Run, hits, table_of_runs
from patterncc.ir.table import Table, check_size
from patterncc.ir.tokens import touched
from patterncc.passes.closed_form import closed_form


@traced
def lower_columns(layout: Layout, *, causal: bool, block: int, rows: int, columns: int) -> Table:
    """The rows of columns 0..columns-1, in rising order: what dK and dV are summed over.

    >>> print(lower_columns(Layout.parse("d<2 | j%4==1"), causal=True, block=64, rows=6, columns=6))
    0: 0 1
    1: 1-5
    2: 2 3
    3: 3 4
    4: 4 5
    5: 5
    """
    check_size(rows, columns)
    layout = touched(layout, causal=causal, block=block)
    form = closed_form(layout, causal)
    if form:
        return table_of_runs(_runs(form, causal, rows, columns), columns)
    return table_of_bitmaps(_bitmaps(layout, causal, rows, columns))


def _bitmaps(layout: Layout, causal: bool, rows: int, columns: int) -> Iterator[tuple[NDArray[np.bool_], int]]:
    """Columns by the chunk, each with the rows that can keep them; what rows draw is drawn once."""
    drawn = draw_rows(layout.random, np.arange(rows)) if layout.random else None
    width = max(1, CELLS // max(1, rows))
    for low in range(0, columns, width):
        first = min(low, rows) if causal else 0
        span = range(low, min(low + width, columns))
        some = None if drawn is None else drawn[first:]
        yield bitmap(layout, range(first, rows), span, causal=causal, drawn=some).T, first


def _runs(form: ClosedForm, causal: bool, rows: int, columns: int) -> list[Run]:
    """Bands from the nearest distance to the farthest, so that rows rise; a sink's columns are kept by every row, those
    of a chunk by all of its later rows first."""
    j = np.arange(columns)
    start = np.minimum(j, rows) if causal else 0 * j
    in_sink = j < form.sink
    runs = [Run(np.arange(rows), start, np.where(in_sink, rows, 0))]
    if form.chunk:
        stop = np.minimum((j // form.chunk + 1) * form.chunk, rows)
        runs.append(Run(np.arange(rows), start, np.where(in_sink, 0, stop)))
        start = np.maximum(start, stop)
    for band in form.bands:
        low = np.maximum(start, j + band.d_from) if band.d_from is not None else start
        high = np.minimum(rows, j + band.d_to) if band.d_to is not None else np.full(columns, rows)
        if band.anchor == KEY:
            taken = np.isin(j % band.every, band.residues) & ~in_sink
            runs.append(Run(np.arange(rows), low, np.where(taken, high, 0)))
        else:
            runs.append(Run(hits(band, 1 - columns, rows), low, np.where(in_sink, 0, high), shift=j))
    return runs
