"""Ranges of distances or columns that grow over what residues keep beside them, so that equal unions become equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from patterncc.ir.layout import KEY, Term
from patterncc.ir.terms import simplify

MOST = 4096  # numbers beside a range that are looked at


def filled(terms: tuple[Term, ...], *, causal: bool) -> tuple[Term, ...]:
    """The same union, of terms as `simplify` gives them. A range of d, or of j, without another condition then reaches
    as far as residues of the same number keep what is beside it, and is left out where they keep all of it. This is for
    comparing: kernels are written from the range as it was, which classes are more likely to share.

    >>> def same(text: str) -> str:
    ...     return " | ".join(map(str, filled(tuple(map(Term.parse, text.split(" | "))), causal=True)))
    >>> same("d<8 | (i-j)%16 in 6:9"), same("d<6 | (i-j)%16 in 6:9"), same("j<1 | j%8==0"), same("j<1 | j%8==1")
    ('d<9 | (i-j)%16 in 6:9', 'd<9 | (i-j)%16 in 6:9', 'j%8==0', 'j<2 | j%8==1')
    """
    residues = [term for term in terms if term.every > 1 and term == _residue(term)]
    grown: list[Term] = []
    for term in terms:
        of_key = term == Term(j_from=term.j_from, j_to=term.j_to)
        beside = [residue for residue in residues if (residue.anchor == KEY) == of_key]
        if not beside or not (of_key or term == Term(d_from=term.d_from, d_to=term.d_to)):
            grown.append(term)
            continue

        def is_kept(x: int, beside: list[Term] = beside) -> bool:
            return any((x - residue.offset) % residue.every < residue.width for residue in beside)

        low, high = (term.j_from, term.j_to) if of_key else (term.d_from, term.d_to)
        first = 0 if of_key or causal else None  # there is nothing before it
        low, high = _grown(low, high, first, is_kept)
        if low is None or high is None or not all(map(is_kept, range(low, min(high, low + MOST)))) or high - low > MOST:
            grown.append(Term(j_from=low, j_to=high) if of_key else Term(d_from=low, d_to=high))
    return terms if grown == list(terms) else simplify(grown, causal=causal)


def _residue(term: Term) -> Term:
    """The term without its bounds."""
    return replace(Term(), every=term.every, offset=term.offset, width=term.width, anchor=term.anchor)


def _grown(
    low: int | None, high: int | None, first: int | None, is_kept: Callable[[int], bool]
) -> tuple[int | None, int | None]:
    """The range with what is kept beside it; `low` is `first` where nothing else ends it."""
    low = first if low is None else low
    for _ in range(MOST):
        if low is None or low == first or not is_kept(low - 1):
            break
        low -= 1
    for _ in range(MOST):
        if high is None or not is_kept(high):
            break
        high += 1
    return low, high
