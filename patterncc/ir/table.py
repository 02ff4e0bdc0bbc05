"""The index map as arrays: for every row, the columns of which it keeps any token pair, in rising order (CSR)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from patterncc.errors import UsageError
from patterncc.language.ranges import spans

if TYPE_CHECKING:  # numpy comes with the first table: most patterns are compiled without any
    import numpy as np
    from numpy.typing import NDArray

MOST_ROWS = 2**24
MOST_ENTRIES = 2**29  # 2 GiB of columns


@dataclass(frozen=True, eq=False)
class Table:
    """Row i lists columns[pointers[i]:pointers[i + 1]]. Read the other way (column to rows) the words change places.

    >>> table = Table.of([[0], [0, 1], [], [0, 1, 2, 3]])
    >>> print(table)
    0: 0
    1: 0 1
    2:
    3: 0-3
    >>> Table.parse(str(table)) == table
    True
    """

    pointers: NDArray[np.int64]  # [rows + 1]
    columns: NDArray[np.int32]  # [entries]

    @staticmethod
    def of(rows: Iterable[Sequence[int]]) -> Table:
        """A table of the given lists."""
        import numpy as np

        lists = list(rows)
        pointers = np.array([0, *accumulate(map(len, lists))], dtype=np.int64)
        return Table(pointers, np.array([column for row in lists for column in row], dtype=np.int32))

    @property
    def rows(self) -> int:
        return len(self.pointers) - 1

    @property
    def entries(self) -> int:
        return len(self.columns)

    def row(self, i: int) -> NDArray[np.int32]:
        """The columns of row i: a view."""
        return self.columns[self.pointers[i] : self.pointers[i + 1]]

    def tolist(self) -> list[list[int]]:
        return [self.row(i).tolist() for i in range(self.rows)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        import numpy as np

        return np.array_equal(self.pointers, other.pointers) and np.array_equal(self.columns, other.columns)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return "\n".join(f"{i}: {_ranges(self.row(i))}".rstrip() for i in range(self.rows))

    @staticmethod
    def parse(text: str) -> Table:
        """Read back what `str` printed."""
        rows: list[list[int]] = []
        for line in text.splitlines():
            if not (found := re.fullmatch(r"(\d+):((?: \d+(?:-\d+)?)*)", line)) or int(found[1]) != len(rows):
                raise ValueError(f"not row {len(rows)} of a table: {line!r}")
            spans = (span.partition("-") for span in found[2].split())
            rows.append([j for low, _, high in spans for j in range(int(low), int(high or low) + 1)])
        return Table.of(rows)


def check_size(rows: int, columns: int, entries: int = 0) -> None:
    """Raise UsageError for a table that no machine should be asked to hold."""
    for size, what, most in ((max(rows, columns), "blocks", MOST_ROWS), (entries, "entries", MOST_ENTRIES)):
        if size > most:
            raise UsageError(f"a table of {size:,} {what}; the most is {most:,}", "take a shorter length")


def _ranges(columns: NDArray[np.int32]) -> str:
    """3 11 112-127: runs of three and more are written as ranges."""
    return " ".join(spans(columns.tolist(), shortest=3)).replace(",", "")
