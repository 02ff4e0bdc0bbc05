"""How many layers it takes until information can flow from every token to every later one, residual paths included.

The layers are those of the pattern, from layer 0 up, each the union over its heads; the answer is the smallest n such
that layers 0 .. n-1 connect every pair (not causal: every pair both ways, by tokens below the later one, so at every
length). Else the smallest pair, by (query token, key token), that all layers together leave unconnected.

One layer: coverage, exact at tokens. A layer that covers by itself ends the search. Windows alone: lags add up, exact
at tokens (`_windows`). Otherwise causal layers are composed on blocks for every length (`compose`), twice where a
window or a sink cuts through blocks: with the blocks kept whole, which proves what is connected, and with the blocks
kept in part, which proves what is not. Between the two, single query tokens are followed back exactly (`sources`), and
what is then still open is composed on tokens (`fine`).
Not causal (`across`): how far the first token sees (`ahead`), lengths up to one that decides, and layers with rows and
columns that everything passes through. Where all this leaves a question, every pair of the first tokens is looked at
(`small`): "undecided" is only said of patterns without a small counterexample.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from functools import cache

from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.coarse import in_larger_blocks
from patterncc.analysis.geometry.extent import column_extent, extent
from patterncc.analysis.geometry.first_pair import first_pair
from patterncc.analysis.geometry.outside import first_outside
from patterncc.analysis.geometry.union import TokenRange, Union, meet, union
from patterncc.analysis.proofs.reach.across import OfTokens, Reached, across
from patterncc.analysis.proofs.reach.compose import first_unconnected, keeps_blocks
from patterncc.analysis.proofs.reach.fine import refined
from patterncc.analysis.proofs.reach.small import first_small, further, settled_small
from patterncc.analysis.proofs.reach.sources import sources
from patterncc.analysis.verdict import Verdict, at_tokens, proof_of
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout, Term
from patterncc.ir.terms import contains, simplify
from patterncc.ir.tokens import joined, touched_terms, whole_terms

Firsts = list[tuple[int, int] | None]  # after 1, 2, ... layers: the smallest unconnected (row, column)
MOST_STEPS = 4096  # pairs of spans of distances that are added up for a layer
LOOK = 1 << 22  # token pairs followed back, layers times tokens squared over blocks


def reach(classes: Classes, budget: Budget, within: int | None = None) -> tuple[Verdict, ...]:
    """One verdict for the model; its value is the smallest number of layers. `within`: only the first so many."""
    layers = tuple(range(min(classes.layers, within or classes.layers)))
    rows = classes.of[: len(layers)]
    layouts, block = in_larger_blocks(classes.layouts, classes.causal, classes.block)
    unions = {
        row: _joined((union(layouts[k] for k in dict.fromkeys(row)),), classes.causal) for row in dict.fromkeys(rows)
    }
    kept = [unions[row] for row in rows]
    found = layers_to_reach(kept, classes.causal, block, budget)
    many = f"{len(kept)} layers" if len(kept) > 1 else "1 layer"
    low, high = found.at_least, found.at_most
    if high is not None:
        exact = low == high
        count = f"{high} layer{'s' if high > 1 else ''}" if exact else f"between {low} and {high} layers"
        note = (
            f"{count} {'brings' if high == 1 else 'bring'} every token to every {'later ' if classes.causal else ''}one"
        )
        return (Verdict("reach", "model", layers, True, proof_of(Answer()), None, note, high if exact else None),)
    witness = at_tokens(found.answer.pair, classes.block) if found.answer.pair else None
    leave, connect = ("leave", "connect") if len(kept) > 1 else ("leaves", "connects")
    note = f"{many} {leave} this pair unconnected" if witness else f"open whether {many} {connect} every pair"
    holds = False if witness else None
    return (Verdict("reach", "model", layers, holds, proof_of(found.answer), witness, note),)


def layers_to_reach(kept: list[Union], causal: bool, block: int, budget: Budget) -> Reached:
    """The smallest number of layers that connect every pair, as bounds and an answer (`Reached`).

    Random and mask parts count as not kept when they would connect, which is safe for "enough"; what may hang on them
    is not claimed.
    """
    of = {layer: _alone(layer, causal, block, budget) for layer in dict.fromkeys(kept)}
    alone = [of[layer] for layer in kept]
    covering = next((n for n, answer in enumerate(alone, 1) if answer.holds), None)
    if covering == 1:
        return Reached(1, 1)
    if len(kept) == 1 and alone[0].smallest:
        return Reached(2, None, alone[0])
    asked = kept[: covering or len(kept)]
    if covering is None and (answer := first_small(kept, causal, block)).smallest:
        return Reached(len(kept) + 1, None, answer)
    direct = _together(asked, causal, block, budget)
    if direct is not None:
        asked = asked[:direct]
        covering = direct  # as if the last of them covered alone
        if direct > 1 and _leave_some(asked[:-1], causal, block):
            return Reached(direct, direct)
    return settled_small(asked, _composed(asked, alone, covering, causal, block, budget), causal, block, budget)


def _together(layers: list[Union], causal: bool, block: int, budget: Budget) -> int | None:
    """The smallest number of layers that together attend every pair: each is connected by one step, and stays. None if
    they do not, as far as is known."""
    numbers = range(1, len(layers) + 1)

    @cache
    def attend(n: int) -> bool:
        return _alone(_joined(tuple(dict.fromkeys(layers[:n])), causal), causal, block, budget).holds is True

    return numbers[bisect_left(numbers, True, key=attend)] if attend(len(layers)) else None


def _joined(layers: tuple[Union, ...], causal: bool) -> Union:
    terms = simplify((term for layer in layers for term in layer.terms), causal=causal)
    in_tokens = (Layout((), layer.window, layer.sink, bands=layer.bands) for layer in layers)
    return replace(
        union([Layout(terms), *in_tokens]),
        randoms=frozenset(random for layer in layers for random in layer.randoms),
        masks=frozenset(mask for layer in layers for mask in layer.masks),
    )


def _leave_some(layers: list[Union], causal: bool, block: int) -> bool:
    """Whether some pair that the layers leave unconnected is easily found."""
    return first_small(layers, causal, block).pair is not None or (causal and further(layers, block) is not None)


def _composed(
    asked: list[Union], alone: list[Answer], covering: int | None, causal: bool, block: int, budget: Budget
) -> Reached:
    """`layers_to_reach` by composing the layers, for every length. `covering` numbers the first layer that covers
    alone: no later one is needed."""
    plain = [replace(layer, randoms=frozenset(), masks=frozenset()) for layer in asked]
    found = (_along if causal else across)(plain, block, budget)
    if covering is not None and (found.at_most is None or found.at_most > covering):
        found = Reached(min(found.at_least, covering), covering)
    if not any(layer.opaque for layer in asked):
        return found
    least = 2 if alone[0].pair else 1
    if len(asked) == 1:
        return Reached(least, None, alone[0])
    return Reached(
        min(least, found.at_most or least), found.at_most, Answer(settled=0) if found.at_most is None else Answer()
    )


def _alone(layer: Union, causal: bool, block: int, budget: Budget) -> Answer:
    """What one layer leaves unconnected: coverage, except that t = u is connected by the residual path."""
    spans = (TokenRange(lag_from=1),) if causal else (TokenRange(lag_from=1), TokenRange(lag_to=0))
    return first_pair(tuple((Term(), span) for span in spans), layer, causal, block, budget)


def _along(kept: list[Union], block: int, budget: Budget) -> Reached:
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
