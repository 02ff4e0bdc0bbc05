"""How evenly the heads of a layer are loaded: the heaviest head's token pairs over the mean."""

from __future__ import annotations

from patterncc.analysis.costs.price import LENGTH
from patterncc.analysis.costs.weights import token_pairs
from patterncc.analysis.scopes import layer_classes
from patterncc.analysis.verdict import Verdict
from patterncc.ir.classes import Classes


def balance(classes: Classes, limit: float | None = None, length: int = LENGTH) -> tuple[Verdict, ...]:
    """One verdict a layer class; its value is max / mean over the heads at one length. Holds up to `limit`."""
    pairs = [token_pairs(layout, classes.causal, classes.block, length) for layout in classes.layouts]
    verdicts = []
    for layers in layer_classes(classes):
        weights = [pairs[k] for k in classes.of[layers[0]]]
        mean = sum(weights) / len(weights)
        value = max(weights) / mean if mean else 1.0
        heaviest = weights.index(max(weights))
        note = f"the heaviest head, {heaviest}, does {value:.2f} times the mean head's work"
        holds = limit is None or value <= limit
        proof = f"counted at {length} tokens"
        verdicts.append(Verdict("balance", "layer", layers, holds, proof, None, note, round(value, 6), (heaviest,)))
    return tuple(verdicts)
