"""Which block pairs several causal layers connect, for every length.

Layer relations R(i, j): row i keeps column j, or i = j (the residual connection). C_n = R_n-1 o ... o R_0:
information flows from column j through n layers to row i.

Theorem (layers). Let every bound of the relations be at most T, every stride divide P. Then for j >= T, C_n(i + P, j
+ P) = C_n(i, j), and for i - j >= D_n, C_n(i + P, j) = C_n(i, j), with D_1 = T and D_n+1 = D_n + 2 T + P.
Proof. The first: a chain j <= k <= ... <= i moves by P as a whole, since all of its blocks are at least T. The
second, by induction: C_n+1(i, j) iff some k has C_n(k, j) and R(i, k). Let i - j >= D_n+1 = D_n + 2 T + P.
(=>) If i - k >= T, R(i + P, k) and k serves. Else k - j > D_n + T + P, so k >= T, hence R(i + P, k + P), and C_n(k +
P, j): k + P serves. (<=) Let k serve (i + P, j). If i - k >= T, then R(i, k) and k serves. Else k - j > D_n + T + P,
so k - P >= T and k - P - j >= D_n: k - P serves.

The first needs only what does not move with (i, j) -> (i + 1, j + 1): bounds on j and i, at most S <= T, and strides
of columns, which divide Q | P. So the columns below S + Q and the distances below D_n + P decide C_n for every
length. A column's rows are one integer, a bit a row; columns with equal relations move together, and runs of
distances by doubling shifts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import TypeVar

from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.finite import holds
from patterncc.ir.layout import Term
from patterncc.lazy import np

Layer = TypeVar("Layer", bound=Hashable)
# (first distance, width, period, count): `count` runs of `width` distances, `period` apart; count 0: every distance on
Steps = tuple[tuple[int, int, int, int], ...]
OVERHEAD = 1 << 13  # bits that are shifted in the time that any shift takes


@dataclass(frozen=True)
class Relation:
    """One layer: for each kind of column, the columns of the kind as bits and the distances at which it is kept."""

    kinds: tuple[tuple[int, Steps], ...]


def keeps_blocks(terms: frozenset[Term], i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Whether some term keeps the block pairs (i, j), elementwise with broadcasting."""
    kept = np.zeros(np.broadcast_shapes(i.shape, j.shape), bool)
    for term in terms:
        kept |= holds(term, i, j)
    return kept


def first_unconnected(
    layers: Sequence[Layer],
    count: int,
    far: tuple[int, int],
    near: tuple[int, int],
    budget: Budget,
    keeps: Callable[[Layer, np.ndarray, np.ndarray], np.ndarray],
) -> list[tuple[int, int] | None]:
    """For n = 1 .. count: the smallest (row, column), row > column, that the first n layers leave unconnected, or None.

    `far` is (T, P), `near` is (S, Q); `keeps` tells of a layer which pairs (row, column) it keeps. Raises Undecided(0)
    when the box, or all that is shifted in it, exceeds the budget.

    >>> window = frozenset({Term(d_to=2)})
    >>> first_unconnected([window] * 3, 3, (2, 1), (0, 1), Budget(), keeps_blocks)
    [(2, 0), (3, 0), (4, 0)]
    """
    bound, period = far
    columns = sum(near)
    size = columns + bound + (count - 1) * (2 * bound + period) + period  # columns + D_count + P
    if bound + period > budget.side or columns * size > budget.side**2:
        raise Undecided(0)
    relations: dict[Layer, Relation] = {}
    rows = [1 << j for j in range(columns)]
    limit = (1 << size) - 1
    work = 0
    found: list[tuple[int, int] | None] = []
    zeros = [(j, j) for j in range(columns)]  # each column's first row without a bit, or an earlier one: a heap
    idle: set[Layer] = set()  # layers that have nothing more to add
    for n in range(count):
        layer = layers[n]
        if layer not in relations:
            d, j = np.arange(bound + period)[:, None], np.arange(columns)[None, :]
            relations[layer] = _relation(keeps(layer, d + j, j), far, near, size)
        if layer not in idle:
            work += columns * sum(len(steps) for _, steps in relations[layer].kinds) * (size + OVERHEAD)
            if work > budget.bits:
                raise Undecided(0)
            before, rows = rows, [_through(x, relations[layer], limit) for x in rows]
            idle = {*idle, layer} if rows == before else set()
        found.append(_first_zero(rows, zeros, bound + n * (2 * bound + period) + period))
        if found[-1] is None:  # nor do more layers leave anything
            return found + [None] * (count - len(found))
    return found


def _relation(kept: np.ndarray, far: tuple[int, int], near: tuple[int, int], size: int) -> Relation:
    """The layer that keeps the pairs `kept` [distance, column]."""
    (bound, period), columns = far, sum(near)
    kinds: dict[bytes, int] = {}
    for c in range(columns):
        bits = 1 << c
        if c >= near[0]:  # c, c + Q, c + 2 Q, ...
            turns = -(-(size - c) // near[1])
            bits = ((1 << turns * near[1]) - 1) // ((1 << near[1]) - 1) << c
        key = np.packbits(kept[:, c]).tobytes()
        kinds[key] = kinds.get(key, 0) | bits
    steps = (np.unpackbits(np.frombuffer(key, np.uint8), count=len(kept)).astype(bool) for key in kinds)
    return Relation(
        tuple((bits, _steps(k, bound, period, size)) for bits, k in zip(kinds.values(), steps, strict=True))
    )


def _steps(kept: np.ndarray, bound: int, period: int, size: int) -> Steps:
    """Runs of the distances below the bound; beyond, everything or runs that come back every period."""
    steps = [(start, width, 1, 1) for start, width in _runs(kept[:bound])]
    if kept[bound:].all():
        return (*steps, (bound, 1, 1, 0))
    turns = max(1, -(-(size - bound) // period))
    return (*steps, *((bound + start, width, period, turns) for start, width in _runs(kept[bound:])))


def _runs(kept: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _through(rows: int, relation: Relation, limit: int) -> int:
    """The rows that a set of rows reaches through one more layer; itself among them."""
    reached = rows
    for members, steps in relation.kinds:
        some = rows & members
        if not some:
            continue
        for start, width, period, count in steps:
            if count == 0:
                low = (some & -some).bit_length() - 1 + start
                reached |= limit & ~((1 << low) - 1) if low < limit.bit_length() else 0
            else:
                spread = _repeated(_repeated(some, 1, width, limit), period, count, limit)
                reached |= (spread << start) & limit
    return reached


def _repeated(rows: int, step: int, count: int, limit: int) -> int:
    """The rows, and count - 1 times the same, each `step` further on."""
    have = 1
    while have < count:
        more = min(have, count - have)
        rows |= (rows << (more * step)) & limit
        have += more
    return rows


def _first_zero(rows: list[int], zeros: list[tuple[int, int]], reach: int) -> tuple[int, int] | None:
    """The smallest (row, column) with column < row < column + reach and no bit.

    More layers only move a column's first row without a bit up, so `zeros` is brought forward where it is smallest.
    """
    beyond: list[tuple[int, int]] = []
    found = None
    while zeros and found is None:
        row, j = zeros[0]
        bits = rows[j] >> row
        ones = (~bits & (bits + 1)).bit_length() - 1
        if ones:
            heapreplace(zeros, (row + ones, j))
        elif row < j + reach:
            found = row, j
        else:
            beyond.append(heappop(zeros))
    for entry in beyond:
        heappush(zeros, entry)
    return found
