"""Small counterexamples to reach: every pair of the first tokens looked at, exact, random and mask parts included.

What is found is unconnected. It is the smallest pair where layers are causal, or where it lies in row 0: elsewhere a
smaller query may miss a key that was not looked at. Layers that look ahead by bounds and strides alone are decided by
looking, where the theorem of `noncausal_layers` asks for few enough tokens: moved by blocks of B, tokens do as blocks
do, with bounds and periods B times as large.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache

from patterncc.analysis.geometry.answer import INFINITY, Answer
from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.finite import kept_together
from patterncc.analysis.geometry.union import Union, union
from patterncc.analysis.proofs.reach.noncausal_layers import Pair, Reached, decides, unconnected
from patterncc.analysis.proofs.reach.sources import sources
from patterncc.ir.layout import QUERY, Layout
from patterncc.lazy import np

TOKENS = 512  # looked at, at most, where that decides nothing beyond them
FIRST = 96  # looked at before anything is composed: most that stays unconnected is here
STEPS = 32  # layers after which most bring nothing more within so few tokens
FURTHER = 1 << 23  # tokens before a single query token that is followed back, times the layers
SQUARE = 1 << 10  # its block row, where residues of distances make it a matrix, or rows are drawn


def settled_small(kept: Sequence[Union], found: Reached, causal: bool, block: int, budget: Budget) -> Reached:
    """`found`, or a better answer where looking at the first tokens gives one.

    >>> layer = union([Layout.parse("d<0 | 1<=d | window 50,1 tokens")])
    >>> settled_small([layer], Reached(1, None, Answer(settled=0)), False, 16, Budget()).answer
    Answer(pair=(0, 1), settled=inf)
    """
    if found.answer.smallest or found.at_least == found.at_most:
        return found
    most = found.at_most or len(kept)
    numbers = range(
        found.at_least, most + (found.at_most is None)
    )  # more layers connect more: halved, not gone through

    @cache
    def leaves(n: int) -> Answer:
        return _first(kept[:n], causal, block, budget)

    least = found.at_least + bisect_left(numbers, True, key=lambda n: leaves(n).pair is None)
    if found.at_most is not None:
        enough = least if least < most and leaves(least).holds else most
        return Reached(least, enough)
    if least <= most:  # some number of layers leaves nothing that was looked at
        sure = bisect_left(range(least, most + 1), True, key=lambda n: leaves(n).holds is True)
        if sure <= most - least:
            return Reached(least, least + sure)
        pair, settled = found.answer.pair, max(found.answer.settled, leaves(most).settled)
        if pair is None and causal:
            pair = further(kept, block)
        least = least if pair is None else len(kept) + 1
        return Reached(least, None, Answer(pair, settled if causal or pair is None else 0))
    answer = leaves(most)
    if not answer.smallest:  # both, if there are two, are unconnected
        known = [pair for pair in (answer.pair, found.answer.pair) if pair is not None]
        answer = Answer(min(known), found.answer.settled if causal else 0)
    return Reached(least, None, answer)


def _first(layers: Sequence[Union], causal: bool, block: int, budget: Budget) -> Answer:
    """The smallest pair of the first tokens that the layers leave unconnected, or what there being none tells."""
    distinct = list(dict.fromkeys(layers))
    length = 0
    if not causal and not any(layer.opaque for layer in distinct):
        bound, period = extent(union(Layout(tuple(layer.terms)) for layer in distinct))
        spans = [layer.sink for layer in distinct]
        spans += [side for layer in distinct if layer.window for side in layer.window]
        length = decides(max((bound + 1) * block, *spans), period * block, len(layers), budget)
    answer = first_small(layers, causal, block)
    if answer.smallest:
        return answer
    tokens = length or min(TOKENS, int((budget.lengths / min(len(layers), STEPS)) ** (1 / 3)) or 1)
    pair = _looked_at(layers, causal, block, tokens)
    if pair is None:
        return Answer(settled=INFINITY if length else tokens)
    return Answer(pair, INFINITY if causal or length or pair[0] == 0 else 0)


def first_small(layers: Sequence[Union], causal: bool, block: int) -> Answer:
    """The smallest pair that the layers leave unconnected, if so few tokens tell.

    >>> first_small([union([Layout.parse("d<1 | j%4==0")])] * 9, True, 16)
    Answer(pair=(32, 16), settled=inf)
    """
    pair = _looked_at(layers, causal, block, FIRST)
    return Answer(pair, INFINITY if causal or pair[0] == 0 else 0) if pair else Answer(settled=0)


def _looked_at(layers: Sequence[Union], causal: bool, block: int, tokens: int) -> Pair | None:
    steps = {layer: kept_together(layer, causal, block, tokens) for layer in dict.fromkeys(layers)}
    return unconnected(layers, steps, causal=causal)


def further(kept: Sequence[Union], block: int) -> Pair | None:
    """Some pair that causal layers leave unconnected, found by doubling the query token; None if FURTHER pairs of work
    show none."""
    row = TOKENS // block + 1
    squares = any(
        layer.opaque or any(t.anchor == QUERY and t.width < t.every for t in layer.terms)
        for layer in dict.fromkeys(kept)
    )
    while row * block * len(kept) <= FURTHER and not (squares and row > SQUARE):
        t = (row + 1) * block - 1
        missing = ~sources(kept, t, block)
        if missing.any():
            return t, int(np.argmax(missing))
        row *= 2
    return None
