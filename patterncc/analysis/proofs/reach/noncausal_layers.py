"""How many layers connect every pair of tokens when heads may look ahead.

A pair exists from the length on that holds its later token, and must be connected by tokens below that length.

Theorem (length). Let L layers keep blocks by bounds below T in size and strides that divide P. What they leave
unconnected at any length has its smallest pair at a length of at most 2 (P + L T) + T + 1 blocks.
Proof. Let N be greater, N-1 one block of the pair and j the other. A path at length N - P becomes one at length N by
moving all that it visits from block b on up by P, if nothing is visited between some a >= T and b >= a + T: distances
across stay beyond all bounds, their residues as they are, and so do blocks from b on. A path has at most L-1 blocks
between its ends. (1) From x = max(j, T) to N-1-P they leave such an a and b, if this is L T blocks or more: so if N-1
and j are unconnected, then N-1-P and j are, at length N - P. (2) Otherwise j > T + L T + P, they leave such an a and b
from T to j-P, and N-1-P and j-P are unconnected. In both cases this is a smaller pair.

Theorem (hub). If row c of layer a keeps every column and column c is kept by every row of a later layer b, then
layers 0 .. b connect every pair of which a token lies at or beyond block c. Proof. Such a pair (t, u) has the token k
= c B below its length. In layer a, k takes u up; residual connections hold it until layer b, where t takes k up.

So lengths are composed one by one (`_unconnected`) as far as the first theorem asks; where that is too far, up to a
few blocks, or before the hub. Windows cut through blocks: the blocks kept whole prove what is connected, those kept
in part what is not. What token 0 sees ahead of it (`ahead`) is exact at tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from patterncc.analysis.geometry.answer import INFINITY, Answer
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.finite import keeps
from patterncc.analysis.geometry.outside import first_outside
from patterncc.analysis.geometry.union import Union, union
from patterncc.analysis.proofs.reach.ahead import first_unseen
from patterncc.ir.layout import Layout, Term
from patterncc.ir.tokens import touched_terms, whole_terms
from patterncc.lazy import np

OfTokens = Callable[..., tuple[Term, ...]]  # `whole_terms` or `touched_terms`
BLOCKS = 40  # lengths that are composed first, in blocks: most pairs that stay unconnected are here
Pair = tuple[int, int]  # (row, column)
Layer = TypeVar("Layer", bound=Hashable)


@dataclass(frozen=True)
class Reached:
    """The smallest number of layers lies in at_least .. at_most; at_most None: not known to be enough at all, `answer`
    holds the pair that all layers leave unconnected, or how far none was found."""

    at_least: int
    at_most: int | None
    answer: Answer = field(default_factory=Answer)


def noncausal_layers(kept: list[Union], block: int, budget: Budget) -> Reached:
    """How many layers of a non-causal pattern reach every pair; random and mask parts are left out."""
    unseen = first_unseen(kept, block)
    if unseen is not None:
        return Reached(len(kept) + 1, None, Answer((0, unseen)))
    whole_of = {layer: _terms(layer, block, whole_terms) for layer in dict.fromkeys(kept)}
    whole = [whole_of[layer] for layer in kept]
    tokens = any(layer.window or layer.sink for layer in whole_of)
    some_of = {layer: _terms(layer, block, touched_terms) for layer in whole_of} if tokens else whole_of
    some = [some_of[layer] for layer in kept]
    every = union([Layout(tuple(term for of in (whole_of, some_of) for terms in of.values() for term in terms))])
    bound, period = extent(every)
    longest = [decides(bound, period, n, budget) for n in range(1, len(kept) + 1)]
    most = sum(length > 0 for length in longest)  # the layers that can be composed as far as the theorem asks

    def open_after(layers: list[frozenset[Term]], n: int) -> Pair | None:
        few = _unconnected(layers[:n], BLOCKS, block)
        return few or (_unconnected(layers[:n], longest[n - 1], block) if longest[n - 1] > BLOCKS else None)

    numbers = range(1, len(kept) + 1)  # more layers connect more: the first number that is enough is found by halving
    least = 1 + bisect_left(numbers, True, key=lambda n: open_after(some, n) is None)
    if least > len(kept):
        missing = _unconnected(some, longest[-1] or BLOCKS, block)
        assert missing is not None
        i, j = missing
        smallest = not tokens and (longest[-1] or i == 0)
        return Reached(least, None, Answer((i * block, j * block + (i == j)), INFINITY if smallest else 0))
    hubs = _Hubs(whole, budget)

    @cache
    def surely(n: int) -> bool:
        return open_after(whole, n) is None

    def enough(n: int) -> bool:
        hub = hubs.first(n)
        if hub is not None and _unconnected(whole[:n], hub + 1, block) is None:
            return True
        return most > 0 and surely(min(n, most))

    found = bisect_left(numbers, True, lo=least - 1, key=enough)
    if found < len(kept):
        return Reached(least, numbers[found])
    return Reached(least, None, Answer(settled=0 if tokens else BLOCKS * block))


def decides(bound: int, period: int, layers: int, budget: Budget) -> int:
    """The length up to which that many layers must be composed, in blocks if `bound` and `period` are in blocks; 0 when
    it exceeds the budget."""
    blocks = 2 * (period + layers * (bound + 1)) + bound + 2
    return blocks if layers * blocks**3 <= budget.lengths else 0


class _Hubs:
    """Blocks that take everything up in one layer and give it to every row in a later one."""

    def __init__(self, layers: list[frozenset[Term]], budget: Budget) -> None:
        distinct = dict.fromkeys(layers)
        candidates = {0} | {t.i_from for terms in distinct for t in terms if t.i_from and t.i_from < BLOCKS}
        self._found: list[tuple[int, int]] = []  # (block, layers that it takes), the smallest block first
        for c in sorted(candidates):
            takes = {terms: _keeps_all(Term(i_from=c, i_to=c + 1), terms, budget) for terms in distinct}
            gives = {terms: _keeps_all(Term(j_from=c, j_to=c + 1), terms, budget) for terms in distinct}
            start = next((a for a, terms in enumerate(layers) if takes[terms]), len(layers))
            end = next((b for b in range(start + 1, len(layers)) if gives[layers[b]]), None)
            if end is not None:
                self._found.append((c, end + 1))

    def first(self, count: int) -> int | None:
        """The smallest hub of the first so many layers."""
        return next((c for c, needed in self._found if needed <= count), None)


def _keeps_all(region: Term, terms: frozenset[Term], budget: Budget) -> bool:
    try:
        return first_outside(region, terms, budget) is None
    except Undecided:
        return False


def _unconnected(layers: list[frozenset[Term]], blocks: int, block: int) -> Pair | None:
    """The smallest (row, column) that is unconnected at the shortest length that holds it, up to so many blocks.

    A path of residual connections alone connects a token with itself, not with others of its block.
    """
    return unconnected(layers, {terms: _matrix(terms, blocks) for terms in dict.fromkeys(layers)}, own=block == 1)


def unconnected(
    layers: Sequence[Layer], steps: Mapping[Layer, np.ndarray], *, own: bool = True, causal: bool = False
) -> Pair | None:
    """The smallest (row, column) that is unconnected at the shortest length that holds it; `steps`: what each layer
    keeps of the square looked at. `own`: whether a row is connected with itself in any case.

    At the length n + 1 the new pairs are those of n, so only what flows into it and out of it is followed, at all
    lengths at once: a line a length, without what lies beyond it. Real steps are kept apart from residual connections.
    """
    size = len(next(iter(steps.values())))
    inside = np.tri(size, dtype=bool)  # [length, row or column]
    known = np.eye(size, dtype=bool) & own
    sees = ~(_followed(layers[::-1], steps) | known) & inside
    found = [(n, int(np.argmax(sees[n]))) for n in np.flatnonzero(sees.any(1))[:1].tolist()]
    if not causal:
        seen = ~(_followed(layers, {layer: step.T for layer, step in steps.items()}) | known) & inside
        if seen.any():
            i = int(np.argmax(seen.any(0)))
            found.append((i, int(np.argmax(seen[:, i]))))
    return min(found, default=None)


def _followed(layers: Sequence[Layer], steps: Mapping[Layer, np.ndarray]) -> np.ndarray:
    """bool [length, row]: the rows that the layers lead to from each length's last row, by at least one real step."""
    size = len(steps[layers[0]])
    inside, start = np.tri(size, dtype=bool), np.eye(size, dtype=bool)
    reached = np.zeros_like(inside)
    idle: set[Layer] = set()  # layers that lead nowhere else
    for layer in layers:
        if layer not in idle:
            step = (reached | start).astype(np.float32) @ steps[layer].astype(np.float32) > 0
            before, reached = reached, reached | (step & inside)
            idle = {*idle, layer} if np.array_equal(before, reached) else set()
            if np.array_equal(reached, inside):  # there is nothing more
                break
    return reached


def _matrix(terms: frozenset[Term], blocks: int) -> np.ndarray:
    kept = np.zeros((blocks, blocks), bool)
    for term in terms:
        kept |= keeps(term, np.arange(blocks), blocks)
    return kept


def _terms(layer: Union, block: int, of_tokens: OfTokens) -> frozenset[Term]:
    layout = Layout((), layer.window, layer.sink)
    return layer.terms | frozenset(of_tokens(layout, causal=False, block=block))
