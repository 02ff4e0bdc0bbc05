"""How many layers connect every pair of tokens when heads may look ahead.

A pair exists from the length on that holds its later token, and must be connected by tokens below that length.

Windows alone (`_lags`): a step moves by at most the layer's reach to either side, so lags add up; exact.

Theorem (hub). If row c of layer a keeps every column and column c is kept by every row of a later layer b, then
layers 0 .. b connect every pair of which a token lies at or beyond block c. Proof. Such a pair (t, u) has the token k
= c B below its length. In layer a, k takes u up; residual connections hold it until layer b, where t takes k up. The
finitely many pairs before block c are composed one length at a time (`_unconnected`), and so is everything else up to
a few blocks: what that leaves unconnected is unconnected; what it connects beyond the theorem stays undecided.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from patterncc.analysis.answer import Answer
from patterncc.analysis.budget import Budget, Undecided
from patterncc.analysis.finite import keeps
from patterncc.analysis.plane import first_outside
from patterncc.analysis.union import Union
from patterncc.ir.layout import Layout, Term
from patterncc.ir.tokens import touched_terms, whole_terms
from patterncc.lazy import np

OfTokens = Callable[..., tuple[Term, ...]]  # `whole_terms` or `touched_terms`
BLOCKS = 40  # lengths that are composed one by one, in blocks


@dataclass(frozen=True)
class Reached:
    """The smallest number of layers lies in at_least .. at_most; at_most None: not known to be enough at all, `answer`
    holds the pair that all layers leave unconnected, or how far none was found."""

    at_least: int
    at_most: int | None
    answer: Answer = field(default_factory=Answer)


def across(kept: list[Union], block: int, budget: Budget) -> Reached:
    """Layers of a pattern that is not causal; random and mask parts are left out."""
    lag = _lags(kept, block)
    if lag is not None:
        return Reached(len(kept) + 1, None, Answer((0, lag)))
    whole_of = {layer: _terms(layer, block, whole_terms) for layer in dict.fromkeys(kept)}
    whole = [whole_of[layer] for layer in kept]
    tokens = any(layer.window or layer.sink for layer in whole_of)
    some_of = {layer: _terms(layer, block, touched_terms) for layer in whole_of} if tokens else whole_of
    some = [some_of[layer] for layer in kept]
    numbers = range(1, len(kept) + 1)  # more layers connect more: the first number that is enough is found by halving
    least = 1 + bisect_left(numbers, True, key=lambda n: _unconnected(some[:n], BLOCKS, block) is None)
    if least > len(kept):
        missing = _unconnected(some, BLOCKS, block)
        assert missing is not None
        i, j = missing
        pair = (i * block, j * block + (i == j))
        return Reached(least, None, Answer(pair, settled=0 if tokens else pair[0] + 1))
    hubs = _Hubs(whole, budget)
    enough = bisect_left(numbers, True, lo=least - 1, key=lambda n: _connects(whole[:n], hubs.first(n), block))
    if enough < len(kept):
        return Reached(least, numbers[enough])
    return Reached(least, None, Answer(settled=0 if tokens else BLOCKS * block))


def _connects(layers: list[frozenset[Term]], hub: int | None, block: int) -> bool:
    return hub is not None and _unconnected(layers, hub + 1, block) is None


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


def _unconnected(layers: list[frozenset[Term]], blocks: int, block: int) -> tuple[int, int] | None:
    """The smallest (row, column) that is unconnected at the shortest length that holds it, up to so many blocks.

    At the length of n + 1 blocks the new pairs are those of block n, so only what flows into it and out of it is
    followed, at all lengths at once: a line a length, without the blocks beyond it. A path of residual connections
    alone connects a token with itself, not with others of its block: real steps are kept apart.
    """
    steps = {terms: _matrix(terms, blocks) for terms in dict.fromkeys(layers)}
    into = _followed(layers[::-1], steps)
    out_of = _followed(layers, {terms: step.T for terms, step in steps.items()})
    inside = np.tri(blocks, dtype=bool)  # [length, block]
    own = np.eye(blocks, dtype=bool) & (block == 1)
    sees, seen = ~(into | own) & inside, ~(out_of | own) & inside
    found = [(n, int(np.argmax(sees[n]))) for n in np.flatnonzero(sees.any(1))[:1].tolist()]
    if seen.any():
        i = int(np.argmax(seen.any(0)))
        found.append((i, int(np.argmax(seen[:, i]))))
    return min(found, default=None)


def _followed(layers: list[frozenset[Term]], steps: dict[frozenset[Term], np.ndarray]) -> np.ndarray:
    """[length, block]: where the layers in turn lead from each length's last block, by at least one real step."""
    blocks = len(steps[layers[0]])
    inside, start = np.tri(blocks, dtype=bool), np.eye(blocks, dtype=bool)
    reached = np.zeros_like(inside)
    idle: set[frozenset[Term]] = set()  # layers that lead nowhere else
    for terms in layers:
        if terms not in idle:
            step = (reached | start).astype(np.float32) @ steps[terms].astype(np.float32) > 0
            before, reached = reached, reached | (step & inside)
            idle = {*idle, terms} if np.array_equal(before, reached) else set()
    return reached


def _matrix(terms: frozenset[Term], blocks: int) -> np.ndarray:
    kept = np.zeros((blocks, blocks), bool)
    for term in terms:
        kept |= keeps(term, np.arange(blocks), blocks)
    return kept


def _lags(kept: list[Union], block: int) -> int | None:
    """The first token that token 0 cannot see, when every layer has only token windows, or only block windows."""
    if all(layer.window and not layer.sink and not _beyond_window(layer, block) for layer in kept):
        return sum(layer.window[1] - 1 for layer in kept if layer.window) + 1
    ahead = 0
    for layer in kept:
        if layer.window or layer.sink or not layer.terms:
            return None
        if any(t.width < t.every or (t.j_from, t.j_to, t.i_from, t.i_to) != (None,) * 4 for t in layer.terms):
            return None
        if any(t.d_from is None for t in layer.terms):
            return None
        reach = 0
        for t in sorted(layer.terms, key=lambda t: -(t.d_to if t.d_to is not None else 1 << 62)):
            if (t.d_to is None or t.d_to > reach) and t.d_from is not None and t.d_from <= 0:
                reach = min(reach, t.d_from)
        if any(t.d_from is not None and t.d_from < reach for t in layer.terms):
            return None  # distances further out than a gap
        ahead -= reach
    return (ahead + 1) * block


def _beyond_window(layer: Union, block: int) -> bool:
    before, after = layer.window or (1, 1)
    return any(
        t.d_from is None or t.d_to is None or t.d_to * block > before or (1 - t.d_from) * block > after
        for t in layer.terms
    )


def _terms(layer: Union, block: int, of_tokens: OfTokens) -> frozenset[Term]:
    layout = Layout((), layer.window, layer.sink)
    return layer.terms | frozenset(of_tokens(layout, causal=False, block=block))
