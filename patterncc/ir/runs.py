"""Tables from arithmetic: every row's list is a few runs, each a slice of one rising sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patterncc.ir.closed import Band
from patterncc.ir.table import Table, check_size

CHUNK = 1 << 19  # entries written at a time: what is in flight stays in the processor's cache


@dataclass(frozen=True)
class Run:
    """In row n, the values shift[n] + s of all s in `steps` with low[n] <= shift[n] + s < high[n]."""

    steps: NDArray[np.int64]  # rising
    low: NDArray[np.int64]  # [rows]
    high: NDArray[np.int64]  # [rows]
    shift: NDArray[np.int64] | None = None  # [rows]; None: 0


def table_of_runs(runs: list[Run], rows: int) -> Table:
    """The table whose every row lists its runs one after the other. Time and memory go with the entries.

    >>> n = np.arange(4)
    >>> print(table_of_runs([Run(np.array([0, 3]), 0 * n, n), Run(np.arange(4), n, n + 1)], 4))
    0: 0
    1: 0 1
    2: 0 2
    3: 0 3
    """
    first, count, shift = (np.zeros((rows, len(runs)), dtype=np.int64) for _ in range(3))
    steps = [run.steps for run in runs]
    bases = np.cumsum([0, *map(len, steps)])
    for n, run in enumerate(runs):
        moved = 0 if run.shift is None else run.shift
        start = np.searchsorted(run.steps, run.low - moved)
        count[:, n] = np.maximum(np.searchsorted(run.steps, run.high - moved) - start, 0)
        first[:, n] = bases[n] + start
        shift[:, n] = moved
    pointers = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(count.sum(axis=1), out=pointers[1:])
    check_size(rows, 0, int(pointers[-1]))
    columns = np.empty(pointers[-1], dtype=np.int32)
    values = np.concatenate([*steps, np.zeros(0, dtype=np.int64)]).astype(np.int32)
    shifted = any(run.shift is not None for run in runs)
    for low, high in _chunks(pointers):
        part = slice(low, high)
        counts = count[part].ravel()
        out = columns[pointers[low] : pointers[high]]
        at = np.repeat(first[part].ravel() - (np.cumsum(counts) - counts), counts)
        at += np.arange(len(out))
        np.take(values, at, out=out, mode="clip")
        if shifted:
            out += np.repeat(shift[part].ravel().astype(np.int32), counts)
    return Table(pointers, columns)


def hits(band: Band, low: int, high: int) -> NDArray[np.int64]:
    """The integers of low..high-1 whose residue is one of the band's, in rising order.

    >>> hits(Band(0, None, 8, (0, 3)), -6, 12).tolist()
    [-5, 0, 3, 8, 11]
    """
    turns = np.arange(low // band.every, -(-high // band.every))[:, None] * band.every
    found = (turns + np.array(band.residues)).ravel()
    return found[np.searchsorted(found, low) : np.searchsorted(found, high)]


def _chunks(pointers: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of whole rows of about CHUNK entries, at least one row each."""
    spans, low, rows = [], 0, len(pointers) - 1
    while low < rows:
        high = int(np.searchsorted(pointers, pointers[low] + CHUNK, side="right")) - 1
        high = min(max(high, low + 1), rows)
        spans.append((low, high))
        low = high
    return spans
