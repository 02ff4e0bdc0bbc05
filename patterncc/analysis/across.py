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
    whole = [_terms(layer, block, whole_terms) for layer in kept]
    tokens = any(layer.window or layer.sink for layer in kept)
    some = [_terms(layer, block, touched_terms) for layer in kept] if tokens else whole
    least, missing = 1, None
    for n in range(1, len(kept) + 1):
        missing = _unconnected(some[:n], BLOCKS, block)
        if missing is None:
            break
        least = n + 1
    if missing is not None:
        i, j = missing
        pair = (i * block, j * block + (i == j))
        return Reached(least, None, Answer(pair, settled=0 if tokens else pair[0] + 1))
    for n in range(least, len(kept) + 1):
        hub = _hub(whole[:n], budget)
        if hub is not None and _unconnected(whole[:n], hub + 1, block) is None:
            return Reached(least, n)
    return Reached(least, None, Answer(settled=0 if tokens else BLOCKS * block))


def _hub(layers: list[frozenset[Term]], budget: Budget) -> int | None:
    """A block that takes everything up in one layer and gives it to every row in a later one; the smallest."""
    candidates = sorted({0} | {t.i_from for terms in layers for t in terms if t.i_from and t.i_from < BLOCKS})
    for c in candidates:
        takes = [_keeps_all(Term(i_from=c, i_to=c + 1), terms, budget) for terms in layers]
        gives = [_keeps_all(Term(j_from=c, j_to=c + 1), terms, budget) for terms in layers]
        if any(takes[a] and any(gives[a + 1 :]) for a in range(len(layers))):
            return c
    return None


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
    steps = [_matrix(terms, blocks) for terms in layers]
    inside = np.tri(blocks, dtype=bool)  # [length, block]
    into, out_of = _followed(steps[::-1], inside), _followed([step.T for step in steps], inside)
    own = np.eye(blocks, dtype=bool) & (block == 1)
    sees, seen = ~(into | own) & inside, ~(out_of | own) & inside
    found = [(n, int(np.argmax(sees[n]))) for n in np.flatnonzero(sees.any(1))[:1].tolist()]
    if seen.any():
        i = int(np.argmax(seen.any(0)))
        found.append((i, int(np.argmax(seen[:, i]))))
    return min(found, default=None)


def _followed(steps: list[np.ndarray], inside: np.ndarray) -> np.ndarray:
    """[length, block]: where the steps in turn lead from each length's last block, by at least one real step."""
    start = np.eye(len(inside), dtype=bool)
    reached = np.zeros_like(inside)
    for step in steps:
        reached |= ((reached | start).astype(np.float32) @ step.astype(np.float32) > 0) & inside
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
