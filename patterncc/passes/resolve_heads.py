"""Turn a pattern's shards into layouts: one for every head of every layer, all selectors and expressions evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patterncc.debug import traced
from patterncc.ir.classes import Layouts
from patterncc.ir.layout import KEY, QUERY, Layout, Mask, Random, Term
from patterncc.ir.tokens import whole_terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from patterncc.language import Pattern
    from patterncc.language.resolved import Resolved, ResolvedStride


@traced
def resolve_heads(pattern: Pattern) -> Layouts:
    r"""Each layout that the file's rules come to, once, and which of them each head has.

    >>> from patterncc.language import loads
    >>> keys = "pattern: 1, name: two, heads: 2, block: 64"
    >>> pattern = loads(f"{{{keys}, shards: [{{heads: all, local: 100 tokens, stride: 16, offset: h}}]}}")
    >>> print(resolve_heads(pattern))
    layout 0: d<1 | j%16==0 | window 100,1 tokens
    layout 1: d<1 | j%16==1 | window 100,1 tokens
    layers 0: 0 1
    """
    distinct: list[Layout] = []
    known: dict[object, int] = {}  # -> place in `distinct`
    rows: dict[int, tuple[tuple[Resolved, ...], tuple[int, ...]]] = {}  # by id: layers alike share one tuple

    def number_of(shard: Resolved) -> int:
        if (key := _key(shard)) not in known:
            known[key] = len(distinct)
            distinct.append(_layout(shard, causal=pattern.causal, block=pattern.block))
        return known[key]

    def row_of(shards: tuple[Resolved, ...]) -> tuple[int, ...]:
        if id(shards) not in rows:
            numbers = {id(shard): number_of(shard) for shard in {id(shard): shard for shard in shards}.values()}
            rows[id(shards)] = shards, tuple([numbers[id(shard)] for shard in shards])
        return rows[id(shards)][1]

    of = tuple([row_of(pattern.shards_of(layer)) for layer in range(pattern.layers)])
    return Layouts(tuple(distinct), of)


def _key(shard: Resolved) -> object:
    """A key that is equal for equal shards; masks are compared by identity."""
    strides = tuple([(s.every, s.offset, s.width, s.anchor, s.distance_from, s.distance_to) for s in shard.strides])
    parts = (shard.dense, shard.local, shard.local_tokens, shard.sink, shard.sink_tokens, shard.random)
    parts += shard.chunk, shard.bands
    return parts, strides, shard.global_rows, shard.global_columns, id(shard.mask) if shard.mask is not None else None


def _layout(shard: Resolved, *, causal: bool, block: int) -> Layout:
    """The rules of a shard's parts; windows and sinks in tokens beside the terms of the blocks that they keep whole."""
    if shard.dense:
        return Layout((Term(),))
    terms: list[Term] = []
    if shard.local:
        before, after = shard.local
        terms.append(Term(d_from=None if causal else 1 - after, d_to=before))
    if shard.chunk == 1:
        terms.append(Term(d_from=None if causal else 0, d_to=1))
    in_tokens = Layout(window=shard.local_tokens, bands=shard.bands, sink=shard.sink_tokens)
    terms += whole_terms(in_tokens, causal=causal, block=block)
    for stride in shard.strides:
        terms += _stride_terms(stride, causal)
    terms += [Term(j_to=shard.sink)] if shard.sink else []
    terms += [Term(j_from=j, j_to=j + 1) for j in shard.global_columns]
    terms += [Term(i_from=i, i_to=i + 1) for i in shard.global_rows]
    return Layout(
        tuple(terms),
        shard.local_tokens,
        shard.sink_tokens,
        Random(*shard.random) if shard.random else None,
        None if shard.mask is None else _mask(shard.mask),
        shard.chunk if shard.chunk > 1 else 0,
        shard.bands,
    )


def _mask(kept: NDArray[np.bool_]) -> Mask:
    import numpy as np

    rows, columns = kept.shape
    return Mask(rows, columns, np.packbits(kept).tobytes())


def _stride_terms(stride: ResolvedStride, causal: bool) -> list[Term]:
    """One term; two where the layout looks both ways and the stride begins away from the diagonal."""
    near, far = stride.distance_from, stride.distance_to
    width, anchor = min(stride.width, stride.every), KEY if stride.anchor == "key" else QUERY
    if causal:
        ranges = [(near or None, far)]
    elif near == 0:
        ranges = [(None if far is None else 1 - far, far)]
    else:
        ranges = [(near, far), (None if far is None else 1 - far, 1 - near)]
    return [
        Term(low, high, every=stride.every, offset=stride.offset, width=width, anchor=anchor) for low, high in ranges
    ]
