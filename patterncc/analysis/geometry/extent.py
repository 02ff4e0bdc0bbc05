"""How far the bounds of some parts reach, and a common period of their residues."""

from __future__ import annotations

from math import lcm

from patterncc.analysis.geometry.union import Union
from patterncc.ir.layout import KEY


def extent(union: Union) -> tuple[int, int]:
    """(largest bound of a term or mask in blocks, least common multiple of the strides).

    >>> from patterncc.analysis.geometry.union import union
    >>> from patterncc.ir.layout import Layout
    >>> extent(union([Layout.parse("d<16 | j%12==3"), Layout.parse("j<1 | (i-j)%8==0")]))
    (16, 24)
    """
    bounds = [0]
    for t in union.terms:
        bounds += (abs(x) for x in (t.d_from, t.d_to, t.j_from, t.j_to, t.i_from, t.i_to) if x is not None)
    for mask in union.masks:
        bounds += (mask.rows, mask.columns)
    return max(bounds), lcm(*(t.every for t in union.terms if t.width < t.every))


def column_extent(union: Union) -> tuple[int, int]:
    """`extent` of only those conditions that change when a pair moves (i, j) -> (i + 1, j + 1): bounds on j and i, and
    residues of keys.

    >>> from patterncc.analysis.geometry.union import union
    >>> from patterncc.ir.layout import Layout
    >>> column_extent(union([Layout.parse("d<16 | j%12==3 | (i-j)%8==0")]))
    (0, 12)
    """
    bounds = [0]
    for t in union.terms:
        bounds += (abs(x) for x in (t.j_from, t.j_to, t.i_from, t.i_to) if x is not None)
    for mask in union.masks:
        bounds += (mask.rows, mask.columns)
    return max(bounds), lcm(*(t.every for t in union.terms if t.width < t.every and t.anchor == KEY))
