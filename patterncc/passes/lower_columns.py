"""Write the inverse index map as a table: for every column, the rows that keep any of its token pairs."""

from __future__ import annotations

import numpy as np

from patterncc.debug import traced
from patterncc.ir.bitmap import bitmap, draw_rows
from patterncc.ir.closed import ClosedForm
from patterncc.ir.layout import KEY, Layout
from patterncc.ir.runs import Run, hits, table_of_runs
from patterncc.ir.table import Table
from patterncc.ir.tokens import touched
from patterncc.passes.closed_form import closed_form
from patterncc.passes.lower_table import CELLS


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
    layout = touched(layout, causal=causal, block=block)
    form = closed_form(layout, causal)
    if form:
        return table_of_runs(_runs(form, causal, rows, columns), columns)
    drawn = draw_rows(layout.random, np.arange(rows)) if layout.random else None
    pointers = np.zeros(columns + 1, dtype=np.int64)
    parts = [np.zeros(0, dtype=np.int32)]
    width = max(1, CELLS // max(1, rows))
    for low in range(0, columns, width):
        span = range(low, min(low + width, columns))
        keep = np.ascontiguousarray(bitmap(layout, range(rows), span, causal=causal, drawn=drawn).T)
        pointers[low + 1 : low + 1 + len(keep)] = np.count_nonzero(keep, axis=1)
        parts.append(np.nonzero(keep)[1].astype(np.int32))
    return Table(np.cumsum(pointers), np.concatenate(parts))


def _runs(form: ClosedForm, causal: bool, rows: int, columns: int) -> list[Run]:
    """Bands from the nearest distance to the farthest, so that rows rise; a sink's columns are kept by every row."""
    j = np.arange(columns)
    start = np.minimum(j, rows) if causal else 0 * j
    in_sink = j < form.sink
    runs = [Run(np.arange(rows), start, np.where(in_sink, rows, 0))]
    for band in form.bands:
        low = np.maximum(start, j + band.d_from) if band.d_from is not None else start
        high = np.minimum(rows, j + band.d_to) if band.d_to is not None else np.full(columns, rows)
        if band.anchor == KEY:
            taken = np.isin(j % band.every, band.residues) & ~in_sink
            runs.append(Run(np.arange(rows), low, np.where(taken, high, 0)))
        else:
            runs.append(Run(hits(band, 1 - columns, rows), low, np.where(in_sink, 0, high), shift=j))
    return runs
