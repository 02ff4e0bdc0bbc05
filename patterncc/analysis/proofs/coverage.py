"""Whether some head attends every token pair, for every length.

Coverage at a scope holds when the union over its heads is the whole causal triangle (the square when not causal):
`layer` over the heads of a layer, `group` over the query heads of each KV head, `model` over all heads of all layers.
Which pairs exist at length N is t, u < N; a pair that no head keeps is missing at every length that has it. So
coverage for every length is coverage of all pairs, which `first_pair` decides with one piece: everything.
"""

from __future__ import annotations

from collections.abc import Iterable

from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.geometry.coarse import in_larger_blocks
from patterncc.analysis.geometry.first_pair import first_pair
from patterncc.analysis.geometry.missing import missing
from patterncc.analysis.geometry.union import everything, union
from patterncc.analysis.scopes import kv_groups, layer_classes
from patterncc.analysis.verdict import Verdict, at_tokens, proof_of
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout, Term

SCOPES = ("layer", "group", "model")


def covered(kept: Iterable[Layout], causal: bool, block: int, budget: Budget) -> Answer:
    """Whether the layouts together keep every token pair; else the smallest that they miss."""
    layouts, block = in_larger_blocks(tuple(kept), causal, block)
    return first_pair(((Term(), everything(causal)),), union(layouts), causal, block, budget)


def coverage(classes: Classes, scope: str, budget: Budget) -> tuple[Verdict, ...]:
    """One verdict a layer class (a single one for the model)."""
    if scope == "model":
        used = dict.fromkeys(k for row in dict.fromkeys(classes.of) for k in row)
        answer = covered((classes.layouts[k] for k in used), classes.causal, classes.block, budget)
        return (_verdict(classes, scope, tuple(range(classes.layers)), answer, _most_heads(classes)),)
    verdicts = []
    known: dict[frozenset[int], Answer] = {}
    for layers in layer_classes(classes):
        whole = tuple(range(len(classes.of[layers[0]])))
        groups = [whole] if scope == "layer" else list(kv_groups(classes, layers[0]))
        worst: tuple[Answer, tuple[int, ...]] | None = None
        for heads in groups:
            key = frozenset(classes.of[layers[0]][head] for head in heads)
            if key not in known:
                known[key] = covered((classes.layouts[k] for k in key), classes.causal, classes.block, budget)
            if worst is None or _order(known[key]) < _order(worst[0]):
                worst = known[key], heads
        assert worst is not None
        verdicts.append(_verdict(classes, scope, layers, *worst))
    return tuple(verdicts)


def _gaps(kept: tuple[Layout, ...], causal: bool, block: int) -> str:
    """The first distances at which blocks are missing, in words; chunks are told in blocks of their own size."""
    layouts, larger = in_larger_blocks(kept, causal, block)
    if any(layout.window or layout.bands or layout.sink for layout in layouts):  # of a large block they keep a part
        layouts, larger = kept, block
    gaps = "; ".join(str(gap) for gap in missing(layouts, causal, larger)[:3])
    return f"in blocks of {larger} tokens, {gaps}" if gaps and larger > block else gaps


def _most_heads(classes: Classes) -> tuple[int, ...]:
    """The heads of the layer that has the most."""
    return tuple(range(max(len(row) for row in set(classes.of))))


def _order(answer: Answer) -> tuple[int, tuple[int, int], float]:
    """A sort key: failures by their witness, then what is undecided, the earliest open row first, then what holds."""
    return (0 if answer.pair else 1, answer.pair or (0, 0), answer.settled)


def _verdict(classes: Classes, scope: str, layers: tuple[int, ...], answer: Answer, heads: tuple[int, ...]) -> Verdict:
    who = f"query head of KV head {heads[0] // classes.shape(layers[0]).group}" if scope == "group" else "head"
    note = "every token pair is kept by some head"
    if answer.pair:
        of = layers if scope == "model" else layers[:1]
        used = dict.fromkeys(k for layer in of for k in classes.of[layer][heads[0] : heads[-1] + 1])
        kept = tuple(classes.layouts[k] for k in used)
        gaps = _gaps(kept, classes.causal, classes.block)
        beside = "random parts and masks aside, " if any(layout.random or layout.mask for layout in kept) else ""
        note = f"no {who} keeps this pair" + (f": {beside}{gaps}" if gaps else "")
    elif answer.holds is None:
        note = "random parts or the budget leave this open: no pair is missing up to there"
    witness = at_tokens(answer.pair, classes.block) if answer.pair else None
    heads = heads if witness else ()
    return Verdict("coverage", scope, layers, answer.holds, proof_of(answer), witness, note, heads=heads)
