"""How many causal layers reach every pair, composed on blocks for every length.

Windows alone: lags add up, exact at tokens (`_windows`). Otherwise the layers are composed (`compose`), twice where a
window or a sink cuts through blocks: with the blocks kept whole, which proves what is connected, and with the blocks
kept in part, which proves what is not. Between the two, single query tokens are followed back exactly (`sources`), and
what is then still open is composed on tokens (`fine`).
"""

from __future__ import annotations

from bisect import bisect_left

from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.extent import column_extent, extent
from patterncc.analysis.geometry.outside import first_outside
from patterncc.analysis.geometry.union import Union, meet, union
from patterncc.analysis.proofs.reach.compose import first_unconnected, keeps_blocks
from patterncc.analysis.proofs.reach.fine import refined
from patterncc.analysis.proofs.reach.noncausal_layers import OfTokens, Reached
from patterncc.analysis.proofs.reach.sources import sources
from patterncc.ir.layout import Layout, Term
from patterncc.ir.terms import contains
from patterncc.ir.tokens import joined, touched_terms, whole_terms

Firsts = list[tuple[int, int] | None]  # after 1, 2, ... layers: the smallest unconnected (row, column)
MOST_STEPS = 4096  # pairs of spans of distances that are added up for a layer
LOOK = 1 << 22  # token pairs followed back, layers times tokens squared over blocks


def causal_layers(kept: list[Union], block: int, budget: Budget) -> Reached:
    """How many causal layers reach every pair."""
    if (pair := _windows(kept, block)) is not None:
        return Reached(len(kept) + 1, None, Answer(pair))
    distinct = dict.fromkeys(kept)
    tokens = any(layer.window or layer.sink or layer.bands for layer in distinct)
    whole_of = {layer: _terms(layer, block, whole_terms) for layer in distinct}
    some_of = {layer: _terms(layer, block, touched_terms) for layer in distinct} if tokens else whole_of
    whole, some = [whole_of[layer] for layer in kept], [some_of[layer] for layer in kept]
    every = union([Layout(tuple(term for of in (whole_of, some_of) for terms in of.values() for term in terms))])
    far, near = extent(every), column_extent(every)
    least, count = 1, 1
    try:
        while True:
            count = min(4 * count, len(kept))
            lower = first_unconnected(whole, count, far, near, budget, keeps_blocks)
            upper = first_unconnected(some, count, far, near, budget, keeps_blocks) if tokens else lower
            n = least + bisect_left(upper[least - 1 :], True, key=lambda pair: pair is None)
            if n <= count and lower[n - 1] is not None:
                found = refined(kept, Reached(n, None, Answer(settled=0)), block, budget)
                if found.at_most or found.answer.smallest:
                    return found
            n, answer = _first(kept, least, lower, upper, tokens, block, budget)
            if answer.holds:
                return Reached(n, n)
            if answer.holds is None:
                known = range(n, count + 1)
                enough = bisect_left(known, True, key=lambda m: _surely(kept[:m], lower[m - 1], block, budget))
                found = Reached(n, known[enough]) if enough < len(known) else Reached(n, None, answer)
                return refined(kept, found, block, budget)
            if count == len(kept):
                return refined(kept, Reached(n, None, answer), block, budget)
            least = n
    except Undecided:
        return Reached(least, None, Answer(settled=0))


def _first(
    kept: list[Union], least: int, lower: Firsts, upper: Firsts, tokens: bool, block: int, budget: Budget
) -> tuple[int, Answer]:
    """The smallest n >= least such that n layers are not known to leave a pair unconnected, and what is known of them;
    n = len(lower) + 1 when all these leave a pair: the answer is theirs.

    More layers connect more, so the numbers of layers are halved, not gone through.
    """

    def enough(n: int) -> bool:
        if upper[n - 1] is not None:
            return False
        answer = _decide(kept[:n], lower[n - 1], upper[n - 1], tokens, block, budget)
        return answer.holds is not False

    n = least + bisect_left(range(least, len(lower) + 1), True, key=enough)
    last = min(n, len(lower))
    return n, _decide(kept[:last], lower[last - 1], upper[last - 1], tokens, block, budget)


def _surely(kept: list[Union], lower: tuple[int, int] | None, block: int, budget: Budget) -> bool:
    return lower is None and _diagonal(kept, block, budget).holds is True


def _decide(
    kept: list[Union],
    lower: tuple[int, int] | None,
    upper: tuple[int, int] | None,
    tokens: bool,
    block: int,
    budget: Budget,
) -> Answer:
    """The smallest token pair that these layers leave unconnected, searched between both bounds' smallest."""
    if (pair := _windows(kept, block)) is not None:
        return Answer(pair)
    inside = _diagonal(kept, block, budget)
    if lower is None and inside.pair is None:
        return inside
    pairs = [(lower[0] * block, lower[1] * block)] if lower else []
    start = min(pairs + ([inside.pair] if inside.pair else []))
    if not tokens:
        return Answer(start, inside.settled)
    t, work = start[0], 0
    while work < LOOK and (upper is None or t <= upper[0] * block):
        missing = ~sources(kept, t, block)
        if missing.any():
            return Answer((t, int(missing.argmax())))
        work += len(kept) * (t + 1 + (t // block + 1) ** 2)
        t += 1
    return Answer((upper[0] * block, upper[1] * block) if upper else None, settled=t)


def _terms(layer: Union, block: int, of_tokens: OfTokens) -> frozenset[Term]:
    layout = Layout((), layer.window, layer.sink, bands=layer.bands)
    return layer.terms | frozenset(of_tokens(layout, causal=True, block=block))


def _diagonal(kept: list[Union], block: int, budget: Budget) -> Answer:
    """The smallest pair u < t within one block that no layer's whole blocks keep."""
    if block == 1:
        return Answer()
    terms = frozenset(term for layer in set(kept) for term in _terms(layer, block, whole_terms))
    try:
        found = first_outside(meet(Term(), Term(d_from=0, d_to=1)), terms, budget)
    except Undecided as stop:
        return Answer(settled=stop.decided * block)
    return Answer((found[0] * block + 1, found[0] * block)) if found else Answer()


def _windows(kept: list[Union], block: int) -> tuple[int, int] | None:
    """The smallest unconnected pair when every layer keeps a token window and sinks (of tokens or blocks), and no other
    blocks beyond the window.

    A pair u <= t is connected iff some layer's sink holds u, or t - u is a sum of one distance of each layer, that its
    window or a band keeps: a token that is not a sink is only ever left by these, and steps may stay.
    """
    sink, lags = 0, joined([(0, 1)])  # of connected tokens beyond the sinks
    for layer in kept:
        before = max(layer.window[0] if layer.window else 1, 1)
        known = whole_terms(Layout(bands=layer.bands), causal=True, block=block)
        sink = max(sink, layer.sink)
        for term in layer.terms:
            if (term.d_to is not None and term.d_to * block <= before) or any(contains(of, term) for of in known):
                continue
            if term.j_to is None or term != Term(j_to=term.j_to):
                return None
            sink = max(sink, term.j_to * block)
        steps = joined([(0, before), *layer.bands])
        if len(steps) * len(lags) > MOST_STEPS or steps[-1][1] is None:
            return None
        lags = joined((a + c, b + d - 1) for a, b in lags for c, d in steps if b is not None and d is not None)
    return sink + (lags[0][1] or 0), sink
