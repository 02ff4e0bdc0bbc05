"""Boxes of the plane: the block pairs (i, j) whose distance, column and row lie in three ranges.

Within a box that no bound of a term cuts, a term's bounds hold for all pairs or for none, so only its residue is left:
that is how every question about the plane becomes questions about residues on a line.
"""

from __future__ import annotations

from dataclasses import dataclass

from patterncc.analysis.geometry.answer import INFINITY
from patterncc.ir.layout import Term


@dataclass(frozen=True)
class Box:
    """d0 <= i - j < d1, j0 <= j < j1, i0 <= i < i1, where i, j >= 0. Bounds may be infinite, never None."""

    d0: float = -INFINITY
    d1: float = INFINITY
    j0: float = 0
    j1: float = INFINITY
    i0: float = 0
    i1: float = INFINITY

    @property
    def empty(self) -> bool:
        return self.d0 >= self.d1 or self.j0 >= self.j1 or self.i0 >= self.i1

    def tight(self) -> Box:
        """The same pairs, every bound as narrow as the other two ranges make it.

        >>> Box(d0=0, j1=4, i0=10).tight()
        Box(d0=7, d1=inf, j0=0, j1=4, i0=10, i1=inf)
        """
        d0, d1, j0, j1, i0, i1 = self.d0, self.d1, self.j0, self.j1, self.i0, self.i1
        for _ in range(2):  # j <= i - d0, i < i1, ...: each range follows from the other two
            d0, d1 = max(d0, i0 - j1 + 1), min(d1, i1 - j0)
            j0, j1 = max(j0, i0 - d1 + 1), min(j1, i1 - d0)
            i0, i1 = max(i0, j0 + d0), min(i1, j1 + d1 - 1)
        return Box(d0, d1, j0, j1, i0, i1)

    def meet(self, other: Box) -> Box:
        """The pairs in both."""
        return Box(
            max(self.d0, other.d0),
            min(self.d1, other.d1),
            max(self.j0, other.j0),
            min(self.j1, other.j1),
            max(self.i0, other.i0),
            min(self.i1, other.i1),
        ).tight()

    def overlaps(self, other: Box) -> bool:
        """Whether each of the three ranges meets the other's (some pair is in both, unless the ranges contradict)."""
        return (
            other.d0 < self.d1
            and self.d0 < other.d1
            and other.j0 < self.j1
            and self.j0 < other.j1
            and other.i0 < self.i1
            and self.i0 < other.i1
        )

    def within(self, other: Box) -> bool:
        """Whether every pair of this tight box is one of the other's."""
        return (
            other.d0 <= self.d0
            and self.d1 <= other.d1
            and other.j0 <= self.j0
            and self.j1 <= other.j1
            and other.i0 <= self.i0
            and self.i1 <= other.i1
        )

    def before(self, other: Box) -> bool:
        """Whether some column has a pair in this box and one in a later row of the other (unless the boxes' ranges
        contradict).

        >>> Box(d0=4).before(Box(j0=9, i0=9, i1=10)), Box(d0=4, i0=9).before(Box(i0=9, i1=10))
        (True, False)
        """
        return other.j0 < self.j1 and self.j0 < other.j1 and other.i1 > self.i0 + 1 and other.d1 > self.d0 + 1


def box_of(term: Term) -> Box:
    """The box of a term's bounds.

    >>> box_of(Term(d_to=16, j_from=1))
    Box(d0=-inf, d1=16, j0=1, j1=inf, i0=0, i1=inf)
    """
    return Box(
        -INFINITY if term.d_from is None else term.d_from,
        INFINITY if term.d_to is None else term.d_to,
        max(term.j_from or 0, 0),
        INFINITY if term.j_to is None else term.j_to,
        max(term.i_from or 0, 0),
        INFINITY if term.i_to is None else term.i_to,
    )
