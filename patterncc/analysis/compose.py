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

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

from patterncc.analysis.budget import Budget, Undecided
from patterncc.analysis.finite import holds
from patterncc.ir.layout import Term
from patterncc.lazy import np

Steps = tuple[tuple[int, int, int], ...]  # (first distance, step, count); count 0: every distance from the first on


@dataclass(frozen=True)
class Relation:
    """One layer: for each kind of column, the columns of the kind as bits and the distances at which it is kept."""

    kinds: tuple[tuple[int, Steps], ...]


def first_unconnected(
    layers: Sequence[frozenset[Term]],
    count: int,
    far: tuple[int, int],
    near: tuple[int, int],
    budget: Budget,
) -> list[tuple[int, int] | None]:
    """For n = 1 .. count: the smallest (row, column), row > column, that the first n layers leave unconnected, or None.

    `far` is (T, P), `near` is (S, Q). Raises Undecided(0) when the box, or all layers' together, exceed the budget.

    >>> window = frozenset({Term(d_to=2)})
    >>> first_unconnected([window] * 3, 3, (2, 1), (0, 1), Budget())
    [(2, 0), (3, 0), (4, 0)]
    """
    bound, period = far
    columns = sum(near)
    size = columns + bound + (count - 1) * (2 * bound + period) + period  # columns + D_count + P
    if bound + period > budget.side or columns * size > budget.side**2 or count * columns * size > budget.bits:
        raise Undecided(0)
    relations: dict[frozenset[Term], Relation] = {}
    rows = [1 << j for j in range(columns)]
    limit = (1 << size) - 1
    found: list[tuple[int, int] | None] = []
    zeros = [(j, j) for j in range(columns)]  # each column's first row without a bit, or an earlier one: a heap
    idle: set[frozenset[Term]] = set()  # layers that have nothing more to add
    for n in range(count):
        terms = layers[n]
        if terms not in relations:
            relations[terms] = _relation(terms, far, near, size)
        if terms not in idle:
            before, rows = rows, [_through(x, relations[terms], limit) for x in rows]
            idle = {*idle, terms} if rows == before else set()
        found.append(_first_zero(rows, zeros, bound + n * (2 * bound + period) + period))
    return found


def _relation(terms: frozenset[Term], far: tuple[int, int], near: tuple[int, int], size: int) -> Relation:
    bound, period = far
    columns = sum(near)
    d = np.arange(bound + period)
    kept = np.zeros((len(d), columns), bool)  # [distance, column]
    j = np.arange(columns)[None, :]
    for term in terms:
        kept |= holds(term, d[:, None] + j, j)
    kinds: dict[bytes, int] = {}
    for c in range(columns):
        bits = 1 << c
        if c >= near[0]:  # c, c + Q, c + 2 Q, ...
            turns = -(-(size - c) // near[1])
            bits = ((1 << turns * near[1]) - 1) // ((1 << near[1]) - 1) << c
        key = np.packbits(kept[:, c]).tobytes()
        kinds[key] = kinds.get(key, 0) | bits
    steps = (np.unpackbits(np.frombuffer(key, np.uint8), count=len(d)).astype(bool) for key in kinds)
    return Relation(
        tuple((bits, _steps(k, bound, period, size)) for bits, k in zip(kinds.values(), steps, strict=True))
    )


def _steps(kept: np.ndarray, bound: int, period: int, size: int) -> Steps:
    """Runs of the distances below the bound; beyond, everything or one progression a residue."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept[:bound], [False]]).astype(np.int8)))
    steps = [(int(a), 1, int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    tail = kept[bound:]
    if tail.all():
        return (*steps, (bound, 1, 0))
    return (*steps, *((bound + int(r), period, max(1, -(-(size - bound) // period))) for r in np.flatnonzero(tail)))


def _through(rows: int, relation: Relation, limit: int) -> int:
    """The rows that a set of rows reaches through one more layer; itself among them."""
    reached = rows
    for members, steps in relation.kinds:
        some = rows & members
        if not some:
            continue
        for start, step, count in steps:
            if count == 0:
                low = (some & -some).bit_length() - 1 + start
                reached |= limit & ~((1 << low) - 1) if low < limit.bit_length() else 0
                continue
            spread, have = some, 1
            while have < count:
                more = min(have, count - have)
                spread |= (spread << (more * step)) & limit
                have += more
            reached |= (spread << start) & limit
    return reached


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
