"""What several causal layers connect, exact at tokens, where composing their blocks leaves it open.

The theorem of `compose` asks of the layers only that they keep what they keep at distances of T and more, moved by P,
and in columns from S on, moved by Q. Tokens of blocks of B do so with B times what the blocks need: t - u >= (T + 1) B
puts T blocks between t and u, and a move by Q B moves both blocks by Q. Windows and sinks are bounds of their own. So
tokens are composed as blocks are; it takes a kind of column for each token of Q blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from patterncc.analysis.geometry.answer import INFINITY, Answer
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.extent import column_extent, extent
from patterncc.analysis.geometry.union import Union, union
from patterncc.analysis.proofs.reach.compose import first_unconnected, keeps_blocks
from patterncc.analysis.proofs.reach.noncausal_layers import Reached
from patterncc.ir.layout import Layout
from patterncc.lazy import np

COLUMNS = 1_024  # kinds of columns that are followed one by one, through as many each layer
BITS = 1 << 32  # shifted by that, at most: a second or two


def refined(kept: Sequence[Union], known: Reached, block: int, budget: Budget) -> Reached:
    """`known`, or a better answer where composing tokens gives one.

    >>> layer = union([Layout.parse("(i-j)%4==0 | window 9,1 tokens")])
    >>> refined([layer] * 5, Reached(1, None, Answer(settled=0)), 8, Budget())
    Reached(at_least=4, at_most=4, answer=Answer(pair=None, settled=inf))
    """
    if known.at_least == known.at_most or known.answer.smallest:
        return known
    whole = union(Layout(tuple(layer.terms)) for layer in dict.fromkeys(kept))
    (bound, period), (start, turn) = extent(whole), column_extent(whole)
    sink = max(layer.sink for layer in kept)
    near = max(start * block, sink), turn * block
    far = max((bound + 1) * block, sink, *(layer.window[0] for layer in kept if layer.window)), period * block
    far = max(far[0], *(high or low for layer in kept for low, high in layer.bands), 0), far[1]
    if sum(near) > COLUMNS:
        return known
    most = known.at_most or len(kept)
    count = min(known.at_least, most)
    budget = replace(budget, bits=min(budget.bits, BITS))
    while True:
        try:
            found = first_unconnected(kept, count, far, near, budget, partial(_keeps_tokens, block))
        except Undecided:
            return known
        enough = next((n for n, pair in enumerate(found, 1) if pair is None), None)
        if enough is not None:
            return Reached(enough, enough)
        if count == most:
            return Reached(count + 1, None, Answer(found[-1]))
        count = min(2 * count, most)


def _keeps_tokens(block: int, layer: Union, t: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Whether the layer keeps the token pairs (t, u), u <= t, elementwise with broadcasting."""
    kept = keeps_blocks(layer.terms, t // block, u // block) | (u < layer.sink)
    for low, high in layer.bands:
        kept = kept | ((t - u >= low) & (t - u < (high or INFINITY)))
    return kept | (t - u < layer.window[0]) if layer.window else kept
