"""How many layers it takes until information can flow from every token to every later one, residual paths included.

The layers are those of the pattern, from layer 0 up, each the union over its heads; the answer is the smallest n such
that layers 0 .. n-1 connect every pair (not causal: every pair both ways, by tokens below the later one, so at every
length). Else the smallest pair, by (query token, key token), that all layers together leave unconnected.

One layer: coverage, exact at tokens. A layer that covers by itself ends the search. Otherwise causal layers are
composed on blocks for every length (`causal_layers`). Of layers that are not causal (`noncausal_layers`) are looked at:
how far the first token sees (`ahead`), all lengths up to one that decides, and layers with rows and columns that
everything passes through. Where all this leaves a question, every pair of the first tokens is looked at (`small`):
"undecided" is only said of patterns without a small counterexample.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from functools import cache

from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.geometry.coarse import in_larger_blocks
from patterncc.analysis.geometry.first_pair import first_pair
from patterncc.analysis.geometry.union import TokenRange, Union, union
from patterncc.analysis.proofs.reach.causal_layers import causal_layers
from patterncc.analysis.proofs.reach.noncausal_layers import Reached, noncausal_layers
from patterncc.analysis.proofs.reach.small import first_small, further, settled_small
from patterncc.analysis.verdict import Verdict, at_tokens, proof_of
from patterncc.errors import counted
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout, Term
from patterncc.ir.terms import simplify


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
    many = counted(len(kept), "layer")
    low, high = found.at_least, found.at_most
    if high is not None:
        exact = low == high
        count = counted(high, "layer") if exact else f"between {low} and {high} layers"
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
    found = (causal_layers if causal else noncausal_layers)(plain, block, budget)
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
