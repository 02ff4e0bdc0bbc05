"""Turn a pattern's shards into layouts: one for every head of every layer, all selectors and expressions evaluated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patterncc.debug import traced
from patterncc.ir.layout import KEY, QUERY, Layout, Layouts, Mask, Random, Term
from patterncc.ir.tokens import whole_terms

if TYPE_CHECKING:
    from patterncc.spec import Pattern
    from patterncc.spec.resolved import Resolved, ResolvedStride


@traced
def resolve_heads(pattern: Pattern) -> Layouts:
    """[layer][head] -> Layout. Heads whose shards resolve to one object share one layout object.

    >>> from patterncc.spec.resolved import Resolved, ResolvedStride
    >>> class Two:
    ...     layers, heads, causal, block = 1, 2, True, 64
    ...     def shard(self, layer, head):
    ...         return Resolved(local=(16, 1), local_tokens=(100, 1), strides=(ResolvedStride(16, head),))
    >>> print(*resolve_heads(Two())[0], sep="\\n")
    d<16 | d<1 | j%16==0 | window 100,1 tokens
    d<16 | d<1 | j%16==1 | window 100,1 tokens
    """
    known: dict[int, tuple[Resolved, Layout]] = {}  # the shard is kept, so that its id stays its own
    layers = []
    for layer in range(pattern.layers):
        row = []
        for head in range(pattern.heads):
            shard = pattern.shard(layer, head)
            if id(shard) not in known:
                known[id(shard)] = shard, _layout(shard, causal=pattern.causal, block=pattern.block)
            row.append(known[id(shard)][1])
        layers.append(tuple(row))
    return tuple(layers)


def _layout(shard: Resolved, *, causal: bool, block: int) -> Layout:
    if shard.dense:
        return Layout((Term(),))
    terms: list[Term] = []
    if shard.local:
        before, after = shard.local
        terms.append(Term(d_from=None if causal else 1 - after, d_to=before))
    in_tokens = Layout(window=shard.local_tokens, sink=shard.sink_tokens)
    whole = whole_terms(in_tokens, causal=causal, block=block)
    terms += [term for term in whole if term.j_to is None]
    for stride in shard.strides:
        terms += _stride_terms(stride, causal)
    terms += [Term(j_to=shard.sink)] if shard.sink else []
    terms += [term for term in whole if term.j_to is not None]
    terms += [Term(j_from=j, j_to=j + 1) for j in shard.global_columns]
    terms += [Term(i_from=i, i_to=i + 1) for i in shard.global_rows]
    return replace(
        in_tokens,
        terms=tuple(terms),
        random=Random(*shard.random) if shard.random else None,
        mask=None if shard.mask is None else _mask(shard.mask),
    )


def _mask(kept: NDArray[np.bool_]) -> Mask:
    rows, columns = kept.shape
    return Mask(rows, columns, np.packbits(kept).tobytes())


def _stride_terms(stride: ResolvedStride, causal: bool) -> list[Term]:
    """One term; two where the layout looks both ways and the stride begins away from the diagonal."""
    near, far = stride.distance_from, stride.distance_to
    anchor = KEY if stride.anchor == "key" else QUERY
    term = Term(every=stride.every, offset=stride.offset, width=min(stride.width, stride.every), anchor=anchor)
    if causal:
        return [replace(term, d_from=near or None, d_to=far)]
    if near == 0:
        return [term if far is None else replace(term, d_from=1 - far, d_to=far)]
    return [replace(term, d_from=near, d_to=far), replace(term, d_from=None if far is None else 1 - far, d_to=1 - near)]
