"""Whether two patterns keep the same token pairs, for every length; else the first pair each way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patterncc.analysis.geometry.answer import INFINITY, Answer, first
from patterncc.analysis.geometry.budget import DEFAULT, Budget
from patterncc.analysis.geometry.finite import kept_tokens
from patterncc.analysis.geometry.first_pair import first_pair, pieces_of
from patterncc.analysis.geometry.union import union
from patterncc.analysis.proofs.causal import looks_ahead
from patterncc.analysis.verdict import Witness, at_tokens
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout

LOOKED_AT = (128, 512, 2048)  # tokens, where blocks differ


@dataclass(frozen=True)
class OnlyIn:
    """A token pair that one of two patterns keeps, with the layer and the head that do."""

    layer: int
    head: int
    witness: Witness

    def to_json(self) -> dict[str, Any]:
        return {"layer": self.layer, "head": self.head, **self.witness.to_json()}


@dataclass(frozen=True)
class Comparison:
    """`equal` is None when undecided, and so is `subset`: whether a keeps nothing that b does not. Witnesses are
    smallest by (query token, key token), then layer and head, unless `note` says that a smaller one may exist."""

    equal: bool | None
    only_in_a: OnlyIn | None
    only_in_b: OnlyIn | None
    heads: tuple[tuple[int, int], ...] = ()  # the (layer, head) that differ
    note: str = ""
    subset: bool | None = None


def beyond(a: Layout, b: Layout, causal: bool, block: int, budget: Budget = DEFAULT) -> Answer:
    """The smallest token pair that layout a keeps and b does not."""
    return first_pair(pieces_of(union([a]), causal), union([b]), causal, block, budget)


def compare(a: Classes, b: Classes, budget: Budget = DEFAULT) -> Comparison:
    """Head by head and layer by layer; heads and layers that only one pattern has are compared with nothing.

    A causal and a non-causal pattern are compared as squares, the causal one cut. Patterns of different blocks are
    different even where they keep the same tokens; the first pairs are looked for among the first tokens, not proved.
    """
    known: dict[tuple[Layout, Layout], tuple[Answer, Answer]] = {}
    differing: list[tuple[int, int]] = []
    found: tuple[list[tuple[tuple[int, int], int, int]], ...] = ([], [])
    settled = [INFINITY, INFINITY]
    for layer in range(max(a.layers, b.layers)):
        for head in range(max(_heads(a, layer), _heads(b, layer))):
            pair = _layout(a, layer, head), _layout(b, layer, head)
            if pair not in known:
                x, y = pair
                if a.block == b.block:
                    known[pair] = _one_way(a, b, x, y, budget), _one_way(b, a, y, x, budget)
                else:
                    known[pair] = _looked_at(a, b, x, y)
            answers = known[pair]
            if any(answer.pair for answer in answers):
                differing.append((layer, head))
            for side, answer in enumerate(answers):
                settled[side] = min(settled[side], answer.settled)
                found[side].extend([(answer.pair, layer, head)] if answer.pair else [])
    witnesses = [
        OnlyIn(m[1], m[2], at_tokens(m[0], block)) if (m := min(side, default=None)) else None
        for side, block in zip(found, (a.block, b.block), strict=True)
    ]
    shape = [f"{word}: {x} against {y}" for word, x, y in _shapes(a, b) if x != y]
    equal = False if differing or shape else True if min(settled) == INFINITY else None
    subset = False if witnesses[0] else True if settled[0] == INFINITY else None
    undecided = [n for n, witness in enumerate(witnesses) if witness is None and settled[n] < INFINITY]
    where = f"only in {'ab'[undecided[0]]}: " if len(undecided) == 1 else ""
    reach = [f"{where}decided up to {int(min(settled[n] for n in undecided))} tokens"] if undecided else []
    for n, witness in enumerate(witnesses):
        if witness is not None and witness.witness.query_token >= settled[n]:
            reach.append(f"only in {'ab'[n]}: a smaller pair may start at token {int(settled[n])} or later")
    return Comparison(equal, witnesses[0], witnesses[1], tuple(differing), "; ".join(shape + reach), subset)


def _layout(classes: Classes, layer: int, head: int) -> Layout:
    return classes.layout(layer, head) if head < _heads(classes, layer) else Layout()


def _heads(classes: Classes, layer: int) -> int:
    return len(classes.of[layer]) if layer < classes.layers else 0


def _one_way(a: Classes, b: Classes, kept: Layout, other: Layout, budget: Budget) -> Answer:
    if a.causal == b.causal or a.causal:
        return beyond(kept, other, a.causal, a.block, budget)
    behind = beyond(kept, other, True, a.block, budget)
    return first([looks_ahead(kept, a.block, budget), behind])  # b is causal: it keeps no pair ahead


def _looked_at(a: Classes, b: Classes, x: Layout, y: Layout) -> tuple[Answer, Answer]:
    """The first pair that only a keeps and the first that only b keeps, among the first tokens."""
    found: list[tuple[int, int] | None] = [None, None]
    for tokens in LOOKED_AT:
        kept_a, kept_b = kept_tokens(x, a.causal, a.block, tokens), kept_tokens(y, b.causal, b.block, tokens)
        for side, only in enumerate((kept_a & ~kept_b, kept_b & ~kept_a)):
            if found[side] is None and only.any():
                found[side] = divmod(int(only.argmax()), tokens)
        if None not in found:
            break
    return Answer(found[0], LOOKED_AT[-1]), Answer(found[1], LOOKED_AT[-1])


def _shapes(a: Classes, b: Classes) -> tuple[tuple[str, int, int], ...]:
    """The sizes of both; of layers whose own sizes differ, those of the first such layer."""
    shared = range(min(a.layers, b.layers))
    layer = next((n for n in shared if a.shape(n) != b.shape(n)), 0)
    x, y, where = a.shape(layer), b.shape(layer), f" in layer {layer}" if a.shapes or b.shapes else ""
    return (
        ("tokens of a block", a.block, b.block),
        ("layers", a.layers, b.layers),
        (f"heads{where}", x.heads, y.heads),
        (f"KV heads{where}", x.kv_heads, y.kv_heads),
        (f"head dim{where}", x.head_dim, y.head_dim),
        (f"value dim{where}", x.v_head_dim, y.v_head_dim),
    )
