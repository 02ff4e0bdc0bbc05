"""What the parts given in tokens mean for blocks: which they keep whole, and which they touch at all.

A window keeps the token pairs -after < t - u < before. Rows and columns at distance d hold the differences
d*block - (block-1) ... d*block + (block-1), so the window keeps distance d whole iff the largest and the smallest of
them lie inside, and touches it iff any does. Causal layouts have no t < u: `after` then means nothing.
"""

from __future__ import annotations

from dataclasses import replace

from patterncc.ir.layout import Layout, Term


def whole_terms(layout: Layout, *, causal: bool, block: int) -> tuple[Term, ...]:
    """The blocks that the window and the sink keep whole (before the causal cut), as terms.

    >>> whole_terms(Layout(window=(100, 1), sink=70), causal=True, block=32)
    (Term(d_to=3), Term(j_to=2))
    """
    terms = []
    if layout.window:
        before, after = layout.window
        terms.append(Term(d_from=None if causal else 1 - after // block, d_to=before // block))
    if layout.sink:
        terms.append(Term(j_to=layout.sink // block))
    return tuple(term for term in terms if not empty(term, causal))


def touched_terms(layout: Layout, *, causal: bool, block: int) -> tuple[Term, ...]:
    """The blocks of which the window or the sink keeps any token pair, as terms.

    >>> touched_terms(Layout(window=(100, 1), sink=70), causal=True, block=32)
    (Term(d_to=5), Term(j_to=3))
    """
    terms = []
    if layout.window:
        before, after = layout.window
        terms.append(Term(d_from=None if causal else -ceil_div(after - 1, block), d_to=ceil_div(before - 1, block) + 1))
    if layout.sink:
        terms.append(Term(j_to=ceil_div(layout.sink, block)))
    return tuple(terms)


def chunk_terms(chunk: int) -> tuple[Term, ...]:
    """The columns of a row's own chunk, as terms: a column with so many behind it in its chunk is kept as far.

    >>> chunk_terms(2)
    (Term(d_from=0, d_to=2, every=2), Term(d_from=-1, d_to=1, every=2, offset=1))
    """
    return tuple([Term(d_from=-n, d_to=chunk - n, every=chunk, offset=n) for n in range(chunk)])


def touched(layout: Layout, *, causal: bool, block: int) -> Layout:
    """The layout of the blocks of which any token pair is kept: no window and no sink is left in it.

    >>> print(touched(Layout.parse("d<3 | window 100,1 tokens"), causal=True, block=32))
    d<3 | d<5
    """
    return replace(layout, terms=layout.terms + touched_terms(layout, causal=causal, block=block), window=None, sink=0)


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
