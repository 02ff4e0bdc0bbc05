"""A pattern of chunks in blocks as large as its chunks: the same token pairs by far fewer terms.

In blocks of its own size a chunk is the term d < 1; in smaller ones it takes a term for each of its columns, and proofs
compare every term with every other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import gcd

from patterncc.ir.layout import KEY, Layout, Term


def in_larger_blocks(layouts: Sequence[Layout], causal: bool, block: int) -> tuple[tuple[Layout, ...], int]:
    """Layouts that keep the same token pairs, and their block, as large as chunks and all other parts allow; as given
    where there is no chunk, or a part that cannot be told in larger blocks.

    >>> layouts = (Layout.parse("chunk 128"), Layout.parse("chunk 256 | sink 70 tokens"), Layout.parse("all"))
    >>> larger, block = in_larger_blocks(layouts, True, 64)
    >>> print(block, *larger, sep="; ")
    8192; d<1; chunk 2 | sink 70 tokens; all
    """
    if not any(layout.chunk for layout in layouts) or any(_has_distances(layout, causal) for layout in layouts):
        return tuple(layouts), block
    size = gcd(*(layout.chunk for layout in layouts), *(n for layout in layouts for n in _places(layout)))
    if size == 1:
        return tuple(layouts), block
    return tuple(_larger(layout, causal, size) for layout in layouts), block * size


def _has_distances(layout: Layout, causal: bool) -> bool:
    """Whether a part counts distances in blocks, which depend on the places within a larger one, or is drawn or a
    mask."""
    far = any(
        term.d_to is not None or (term.d_from is not None and not (causal and term.d_from <= 0))
        for term in layout.terms
    )
    by_query = any(term.every > 1 and term.anchor != KEY for term in layout.terms)
    return far or by_query or layout.random is not None or layout.mask is not None


def _places(layout: Layout) -> Iterator[int]:
    """The rows and columns at which the terms begin and end, and their periods."""
    for term in layout.terms:
        yield from (n for n in (term.j_from, term.j_to, term.i_from, term.i_to) if n is not None)
        yield from (term.every, term.offset, term.width) if term.every > 1 else ()


def _larger(layout: Layout, causal: bool, size: int) -> Layout:
    """The layout in blocks `size` times as large. Parts in tokens stay as they are."""
    terms: list[Term] = []
    for term in layout.terms:
        ends = term.j_from, term.j_to, term.i_from, term.i_to
        j_from, j_to, i_from, i_to = (None if end is None else end // size for end in ends)
        parts = (term.every, term.offset, term.width)
        every, offset, width = (n // size for n in parts) if term.every > 1 else (1, 0, 1)
        terms.append(Term(None, None, j_from, j_to, i_from, i_to, every, offset, width))
    chunk = layout.chunk // size
    if chunk == 1:
        terms.append(Term(d_from=None if causal else 0, d_to=1))
    return replace(layout, terms=tuple(terms), chunk=chunk if chunk > 1 else 0)
