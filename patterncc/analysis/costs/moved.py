"""Layouts that differ only in where their strides begin: one of them is counted, the others follow by a move.

Theorem (moved). Causal; let every part be bounds on d = i - j, or a window, or a column residue without bounds, and
`near` all but the residues. Let L_e be the layout whose residues all begin e later than those of L_0, none of them
wrapping around. Then L_e keeps (i, j), j >= e, iff L_0 keeps (i - e, j - e), and for j < e iff `near` does.
Proof. Distances are the same after the move, and so is the residue of j - e. A column below e is before the first of
any residue of L_e.

So row i of L_e keeps what row i - e of L_0 does and what `near` keeps in columns below e, which is what it keeps in
row i less what it keeps in row i - e. And where `near` reaches less than d blocks back, nothing but the window and the
columns from e on are alive after e + d blocks: as many as of L_0, e blocks earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from patterncc.ir.layout import KEY, Layout, Term

PLAIN = Term()


@dataclass(frozen=True)
class Moved:
    """The layouts `first` with their residues `by` blocks later. `near` are the parts without a residue; they reach
    `reach` blocks back at most."""

    first: tuple[Layout, ...]
    near: tuple[Layout, ...]
    by: int
    reach: int


@lru_cache(maxsize=1 << 14)
def moved(layouts: tuple[Layout, ...], block: int) -> Moved | None:
    """The move that makes these layouts from simpler ones; None where the theorem does not apply.

    >>> print(*moved((Layout.parse("d<2 | j%8==3"), Layout.parse("d<2 | j%8==5")), 64).first, sep="; ")
    d<2 | j%8==0; d<2 | j%8==2
    """
    turning: list[Term] = []
    near: list[Layout] = []
    reach = 0
    for layout in layouts:
        if layout.sink or layout.random or layout.mask or layout.chunk or layout.bands:
            return None
        mine = [term for term in layout.terms if term.anchor == KEY and term.width < term.every]
        rest = tuple(term for term in layout.terms if term not in mine)
        for term in rest:
            if term.d_to is None or _placed(term):
                return None
            reach = max(reach, term.d_to)
        for term in mine:
            if _placed(term) or (term.d_from, term.d_to) != (None, None) or term.offset + term.width > term.every:
                return None
        if layout.window:
            reach = max(reach, layout.window[0] // block + 2)
        turning += mine
        near.append(replace(layout, terms=rest))
    by = min((term.offset for term in turning), default=0)
    if by == 0:
        return None
    first = tuple(
        replace(x, terms=tuple(replace(t, offset=t.offset - by) if t in turning else t for t in x.terms))
        for x in layouts
    )
    return Moved(first, tuple(near), by, reach)


def _placed(term: Term) -> bool:
    """Whether the term has bounds on rows or columns, so that a move changes it."""
    return (term.j_from, term.j_to, term.i_from, term.i_to) != (None, None, None, None)
