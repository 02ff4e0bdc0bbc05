"""Write the blocks that a layout keeps whole as a few integers, valid for every length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from math import lcm

from patterncc.ir.closed import MOST_RESIDUES, Band, ClosedForm
from patterncc.ir.layout import KEY, QUERY, Layout, Term
from patterncc.ir.tokens import empty

MOST_JOINED = 4096  # residues of a union, counted before its period is reduced
CONTIGUOUS = 1, (0,), KEY


def closed_form(layout: Layout, causal: bool) -> ClosedForm | None:
    """Its sink, its chunk and its bands; None where single rows or columns, random columns, a mask, residues of keys
    and of distances at once, too many residues, or a chunk that looks ahead or lies beside a stride stand in the way.

    >>> print(closed_form(Layout.parse("j<1 | d<16 | j%16==3 | 32<=d & j%4==0"), causal=True))
    j<1 | 0<=d<16 | 16<=d<32 & j%16==3 | 32<=d & j%16 in {0,3,4,8,12}
    >>> print(closed_form(Layout.parse("d<16 | 3<=i<4"), causal=True))
    None
    """
    if layout.random or layout.mask:
        return None
    sink, terms = 0, []
    for term in layout.terms:
        if empty(term, causal):
            continue
        if (term.i_from, term.i_to) != (None, None) or (term.j_from or 0) > 0:
            return None
        if term.j_to is None:
            terms.append(term)
        elif term.width >= term.every and term.d_to is None and _reaches_diagonal(term, causal):
            sink = max(sink, term.j_to)
        else:
            return None
    bands: list[Band] = []
    for low, high in _intervals(terms, causal):
        here = [term for term in terms if _covers(term, low, high)]
        wheel = _wheel(here)
        if wheel is None:
            return None
        band = Band(low, high, *wheel)
        if bands and bands[-1].d_to == low and bands[-1] == replace(band, d_from=bands[-1].d_from, d_to=low):
            bands[-1] = replace(bands[-1], d_to=high)
        elif band.residues:
            bands.append(band)
    if layout.chunk and not (causal and all(band.every == 1 for band in bands)):
        return None
    return ClosedForm(sink, tuple(bands), layout.chunk)


def _intervals(terms: Sequence[Term], causal: bool) -> list[tuple[int | None, int | None]]:
    """The pieces of the line of distances within which no term begins or ends."""
    ends = set(chain.from_iterable((term.d_from, term.d_to) for term in terms)) - {None}
    cuts = sorted(end for end in ends if end is not None and not (causal and end <= 0))
    return list(zip([0 if causal else None, *cuts], [*cuts, None], strict=True))


def _reaches_diagonal(term: Term, causal: bool) -> bool:
    return term.d_from is None or (causal and term.d_from <= 0)


def _covers(term: Term, low: int | None, high: int | None) -> bool:
    below = term.d_from is None or (low is not None and term.d_from <= low)
    return below and (term.d_to is None or (high is not None and high <= term.d_to))


def _wheel(terms: Sequence[Term]) -> tuple[int, tuple[int, ...], str] | None:
    """(every, residues, anchor) of a union of terms; None when no one list of residues says it."""
    if any(term.width >= term.every for term in terms):
        return CONTIGUOUS
    wheels: list[tuple[int, tuple[int, ...], str] | None] = []
    for anchor in (KEY, QUERY):
        if same := [term for term in terms if term.anchor == anchor]:
            every, residues = _residues(same) or (0, ())
            if every == 1:
                return CONTIGUOUS
            wheels.append((every, residues, anchor) if 0 < len(residues) <= MOST_RESIDUES else None)
    if not wheels:
        return 1, (), KEY
    return wheels[0] if len(wheels) == 1 else None


def _residues(terms: Sequence[Term]) -> tuple[int, tuple[int, ...]] | None:
    """The shortest (period, residues) of a union of terms with one anchor; None when there are too many to join.

    >>> _residues([Term(every=2), Term(every=4, offset=1)])
    (4, (0, 1, 2))
    """
    period = lcm(*(term.every for term in terms))
    if sum(period // term.every * term.width for term in terms) > MOST_JOINED:
        return None
    kept = {(t.offset + k + n) % period for t in terms for k in range(t.width) for n in range(0, period, t.every)}
    q = 2
    while q <= len(kept):  # a set that repeats q times within the period has a multiple of q members
        if period % q == 0 and len({r % (period // q) for r in kept}) * q == len(kept):
            period //= q
            kept = {r % period for r in kept}
        else:
            q += 1
    return period, tuple(sorted(kept))
