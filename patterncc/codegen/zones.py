"""Where the rule of a class changes with the distance: what the index map of a tile of rows is written from.

Rows i_first..i_last of a tile differ in their columns only near the distances at which the rule changes. A *piece* is
an interval of distances in which it does not change: columns that lie in it for all rows are far, an arithmetic
progression. An *edge* is what lies between: a cut, or the distances of which a window keeps a part of the token pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

from patterncc.ir.closed import ClosedForm
from patterncc.ir.layout import KEY, QUERY, Layout
from patterncc.ir.plan import Plan

FAR = 1 << 30  # no bound: more blocks than any sequence has, and i - FAR is still an int32
NEVER = -1024  # as `before`: u > t - before is then true for no u that a tile of tokens t may keep
NO_CHUNK = 1  # a chunk of one block is a piece


@dataclass(frozen=True)
class Piece:
    """Distances low <= d < high, of which the columns congruent to residue (+ i, when from_query) modulo every."""

    low: int
    high: int
    every: int = 1
    residue: int = 0
    from_query: int = 0


@dataclass(frozen=True)
class Edge:
    """The distances low <= d < high are masked; low == high is a cut, which only tiles of several rows straddle."""

    low: int
    high: int


@dataclass(frozen=True)
class Zones:
    """The zones of one class: columns below `sink` are kept whole, those below `sink_edge` in part; then pieces, far
    ones first."""

    sink: int
    sink_edge: int
    pieces: tuple[Piece, ...]
    edges: tuple[Edge, ...]  # farthest first
    rule: tuple[Piece, ...]  # the bands: d and j that are kept whole
    before: int  # tokens: t - u < before is kept too, and
    after: int  # -after < t - u
    sink_tokens: int
    chunk: int  # rows and columns are kept where they lie in one chunk of so many; NO_CHUNK


def zones(closed: ClosedForm, layout: Layout, *, block: int, causal: bool) -> Zones:
    """The zones of a class.

    >>> z = zones(ClosedForm.parse("0<=d<2 | 2<=d & j%4==1"), Layout(), block=16, causal=True)
    >>> z.pieces == (Piece(2, FAR, every=4, residue=1), Piece(0, 2))
    True
    >>> z.edges
    (Edge(low=2, high=2),)
    """
    least = 0 if causal else -FAR
    rule = []
    for band in closed.bands:
        low = max(least, -FAR if band.d_from is None else band.d_from)
        high = FAR if band.d_to is None else band.d_to
        sign = 1 if band.anchor == KEY else -1
        turn = int(band.anchor == QUERY)
        if low < high:
            rule += [Piece(low, high, band.every, sign * residue % band.every, turn) for residue in band.residues]
    partial = _apart([*_window_edges(layout, block, least), *_band_edges(layout, block)])
    pieces = [part for piece in rule for part in _without(piece, partial)]
    bounds = {bound for piece in rule for bound in (piece.low, piece.high)} - {least, FAR}
    cuts = [Edge(b, b) for b in bounds if not any(edge.low <= b <= edge.high for edge in partial)]
    return Zones(
        sink=closed.sink,
        sink_edge=max(closed.sink, -(-layout.sink // block)),
        pieces=tuple(sorted(pieces, key=lambda piece: -piece.low)),
        edges=tuple(sorted(partial + cuts, key=lambda edge: -edge.low)),
        rule=tuple(sorted(rule, key=lambda piece: -piece.low)),
        before=layout.window[0] if layout.window else NEVER,
        after=layout.window[1] if layout.window else 0,
        sink_tokens=layout.sink,
        chunk=closed.chunk or NO_CHUNK,
    )


def zones_of(plan: Plan) -> list[Zones]:
    """The zones of the classes of a plan in closed form."""
    causal, block = plan.classes.causal, plan.classes.block
    forms = zip(plan.closed, plan.classes.layouts, strict=True)
    return [zones(form, layout, block=block, causal=causal) for form, layout in forms if form is not None]


def _window_edges(layout: Layout, block: int, least: int) -> list[Edge]:
    """The distances at which the window keeps some token pairs but not all, ends that touch joined."""
    if layout.window is None:
        return []
    before, after = layout.window
    behind = Edge(before // block, -(-(before - 1) // block) + 1)
    ahead = Edge(-(after - 1) // block, -(after // block) + 1)
    if least == 0:
        return [Edge(max(0, behind.low), behind.high)]
    if ahead.high < behind.low:
        return [behind, ahead]
    return [Edge(min(ahead.low, behind.low), max(ahead.high, behind.high))]


def _band_edges(layout: Layout, block: int) -> list[Edge]:
    """The distances at which a band begins or ends within blocks."""
    edges = [Edge(low // block, -(-(low + block - 1) // block)) for low, _ in layout.bands]
    return edges + [Edge(high // block, -(-(high - 1) // block) + 1) for _, high in layout.bands if high is not None]


def _apart(edges: list[Edge]) -> list[Edge]:
    """Edges of the same distances of which no two overlap."""
    apart: list[Edge] = []
    for edge in sorted(edges, key=lambda edge: edge.low):
        if apart and edge.low <= apart[-1].high:
            apart[-1] = Edge(apart[-1].low, max(apart[-1].high, edge.high))
        else:
            apart.append(edge)
    return apart


def _without(piece: Piece, edges: list[Edge]) -> list[Piece]:
    """What is left of a piece between the edges."""
    left, low = [], piece.low
    for edge in sorted(edges, key=lambda edge: edge.low):
        left.append((low, min(piece.high, edge.low)))
        low = max(low, edge.high)
    left.append((low, piece.high))
    return [Piece(a, b, piece.every, piece.residue, piece.from_query) for a, b in left if a < b]
