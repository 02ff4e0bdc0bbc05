"""Parts given in tokens, as terms on blocks: the blocks that they keep whole, and those that they touch at all.

A window keeps the token pairs -after < t - u < before. Rows and columns at distance d hold the differences
d*block - (block-1) ... d*block + (block-1), so the window keeps distance d whole iff the largest and the smallest of
them lie inside, and touches it iff any does. Causal layouts have no t < u: `after` then means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from patterncc.ir.layout import Layout, Term


def whole_terms(layout: Layout, *, causal: bool, block: int) -> tuple[Term, ...]:
    """The blocks that the window, the bands and the sink keep whole (before the causal cut), as terms.

    >>> whole_terms(Layout(window=(100, 1), sink=70), causal=True, block=32)
    (Term(d_to=3), Term(j_to=2))
    """
    terms = []
    if layout.window:
        before, after = layout.window
        terms.append(Term(d_from=None if causal else 1 - after // block, d_to=before // block))
    for low, high in layout.bands:
        terms.append(Term(d_from=ceil_div(low + block - 1, block), d_to=None if high is None else high // block))
    if layout.sink:
        terms.append(Term(j_to=layout.sink // block))
    return tuple(term for term in terms if not empty(term, causal))


def touched_terms(
    layout: Layout, *, causal: bool, block: int, queries: int | None = None, keys: int | None = None
) -> tuple[Term, ...]:
    """The blocks of which the window, a band or the sink keeps any token pair, as terms; for bands, of blocks of which
    only so many `queries` and `keys` are there.

    >>> touched_terms(Layout(window=(100, 1), sink=70), causal=True, block=32)
    (Term(d_to=5), Term(j_to=3))
    """
    terms = []
    if layout.window:
        before, after = layout.window
        terms.append(Term(d_from=None if causal else -ceil_div(after - 1, block), d_to=ceil_div(before - 1, block) + 1))
    for low, high in layout.bands:
        first = ceil_div(low - (queries or block) + 1, block)
        terms.append(Term(d_from=first, d_to=None if high is None else ceil_div(high + (keys or block) - 1, block)))
    if layout.sink:
        terms.append(Term(j_to=ceil_div(layout.sink, block)))
    return tuple(terms)


def chunk_terms(chunk: int) -> tuple[Term, ...]:
    """The columns of a row's own chunk, as terms: one for each place in the chunk, a column with n behind it in its
    chunk is kept by the rows up to distance n.

    >>> chunk_terms(2)
    (Term(d_from=0, d_to=2, every=2), Term(d_from=-1, d_to=1, every=2, offset=1))
    """
    return tuple([Term(d_from=-n, d_to=chunk - n, every=chunk, offset=n) for n in range(chunk)])


def joined(spans: Iterable[tuple[int, int | None]]) -> tuple[tuple[int, int | None], ...]:
    """The same distances low <= x < high (None: without end) in the fewest ranges, rising.

    >>> joined([(9, None), (0, 4), (3, 6), (12, 14)])
    ((0, 6), (9, None))
    """
    found: list[tuple[int, int | None]] = []
    for low, high in sorted(spans, key=lambda span: span[0]):
        before = found[-1] if found else (0, -1)
        if before[1] is None or low <= before[1]:
            found[-1] = before[0], None if before[1] is None or high is None else max(before[1], high)
        else:
            found.append((low, high))
    return tuple(found)


def touched(layout: Layout, *, causal: bool, block: int, queries: int | None = None, keys: int | None = None) -> Layout:
    """The layout of the blocks of which any token pair is kept, where of a block so many `queries` and `keys` are there
    (all, if not given): no window and no sink is left in it.

    >>> print(touched(Layout.parse("d<3 | window 100,1 tokens"), causal=True, block=32))
    d<3 | d<5
    """
    terms = layout.terms + touched_terms(layout, causal=causal, block=block, queries=queries, keys=keys)
    return replace(layout, terms=terms, window=None, bands=(), sink=0)


def empty(term: Term, causal: bool) -> bool:
    """Whether no block at all satisfies the term's bounds: a range is empty, or looks ahead where none may."""
    ranges = ((term.d_from, term.d_to), (term.j_from, term.j_to), (term.i_from, term.i_to))
    return (
        any(low is not None and high is not None and low >= high for low, high in ranges)
        or (term.j_to is not None and term.j_to <= 0)
        or (causal and term.d_to is not None and term.d_to <= 0)
    )


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
