"""Whether no head attends a token ahead of its own, for every length."""

from __future__ import annotations

from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.geometry.first_pair import first_pair, pieces_of
from patterncc.analysis.geometry.union import TokenRange, union
from patterncc.analysis.scopes import layer_classes
from patterncc.analysis.verdict import Verdict, at_tokens, proof_of
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout


def looks_ahead(layout: Layout, block: int, budget: Budget) -> Answer:
    """The smallest pair t < u that the layout keeps when nothing cuts it."""
    ahead = TokenRange(lag_to=0)
    pieces = tuple((part, span.meet(ahead)) for part, span in pieces_of(union([layout]), causal=False))
    return first_pair(pieces, union([]), False, block, budget)


def causal(classes: Classes, budget: Budget) -> tuple[Verdict, ...]:
    """One verdict a layer class. A causal pattern cuts every pair u > t, so there is nothing to search."""
    verdicts = []
    known: dict[int, Answer] = {}
    for layers in layer_classes(classes):
        if classes.causal:
            note = "the pattern is causal: keys after the query are cut"
            verdicts.append(Verdict("causal", "layer", layers, True, proof_of(Answer()), None, note))
            continue
        row = classes.of[layers[0]]
        for k in row:
            if k not in known:
                known[k] = looks_ahead(classes.layouts[k], classes.block, budget)
        failing = [(known[k].pair, head) for head, k in enumerate(row) if known[k].pair]
        pair, head = min(failing) if failing else (None, 0)
        answer = Answer(pair, min(known[k].settled for k in row))
        many = f" ({len(failing)} of {len(row)} heads do)" if len(row) > 1 else ""
        note = f"head {head} attends ahead{many}" if pair else "no head attends ahead"
        witness = at_tokens(pair, classes.block) if pair else None
        heads = (head,) if pair else ()
        verdicts.append(Verdict("causal", "layer", layers, answer.holds, proof_of(answer), witness, note, heads=heads))
    return tuple(verdicts)
