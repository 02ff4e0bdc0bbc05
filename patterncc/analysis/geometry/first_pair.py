"""The smallest token pair that some pieces keep and a union of layouts does not: coverage, subset and causality in one.

A piece is a part and a span: the token pairs of the span in the blocks that the part keeps. A layout is the union of
its pieces: each term with the whole triangle, everything with the window, and so on. What a union leaves of the token
pairs is in turn at most two spans, in the blocks that none of its terms keeps (`union`). So the question splits into
finitely many of the form "smallest pair in a region, kept by no term", which `outside` decides for every length.

Random and mask parts are looked at, block row by block row. Below the masks' last row and beyond their last column
they keep nothing, so masks alone are decided for every length. Random parts never end: what the other parts alone
prove holds for every length (so does a random part within a union that has the very same), what looking finds is a
counterexample, and the rest is undecided beyond the rows looked at, but for single rows further down: there a random
part, which keeps so many blocks a row, cannot make up for terms that leave more and more. The smallest pair that the
terms leave is the smallest of all where no random or mask part happens to keep its block: they only take pairs away.
"""

from __future__ import annotations

from dataclasses import replace

from patterncc.analysis.geometry.answer import INFINITY, Answer, first
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.finite import first_in_rows, keeps_block
from patterncc.analysis.geometry.outside import first_outside
from patterncc.analysis.geometry.union import TokenRange, Union, everything, meet
from patterncc.ir.layout import Mask, Random, Term

Piece = tuple[Term | Random | Mask, TokenRange]
LOOK = 1 << 27  # block pairs that may be looked at
FURTHER = 1 << 23  # columns of a single row, times the parts held against them


def pieces_of(union: Union, causal: bool) -> tuple[Piece, ...]:
    """The token pairs that a union keeps, as pieces."""
    universe = everything(causal)
    whole = (*union.terms, *union.randoms, *union.masks)
    return (*((part, universe) for part in whole), *((Term(), span) for span in union.spans(causal)))


def first_pair(pieces: tuple[Piece, ...], other: Union, causal: bool, block: int, budget: Budget) -> Answer:
    """The smallest token pair that a piece keeps and `other` does not."""
    pieces = tuple((part, span) for part, span in pieces if part not in (*other.randoms, *other.masks))
    plain = tuple((part, span) for part, span in pieces if isinstance(part, Term))
    if len(plain) == len(pieces) and not other.opaque:
        return _by_proof(plain, other, Term(), causal, block, budget)
    terms_only = replace(other, randoms=frozenset(), masks=frozenset())
    upper = tuple((part if isinstance(part, Term) else Term(), span) for part, span in pieces)
    left = _by_proof(upper, terms_only, Term(), causal, block, budget)
    if left.holds:
        return Answer()
    if left.smallest and left.pair is not None and len(plain) == len(pieces):
        i, j = left.pair[0] // block, left.pair[1] // block
        if not any(keeps_block(part, i, j) for part in (*other.randoms, *other.masks)):
            return left
    rows, columns, all_looked_at = _extent(pieces, other, budget)
    sure = Answer() if other.opaque else _by_proof(plain, other, Term(), causal, block, budget)
    if sure.smallest and sure.pair is not None and sure.pair[0] < rows * block:  # later rows cannot matter
        last = sure.pair[0] // block + 1
        return first([sure, Answer(first_in_rows(pieces, other, causal, block, last, columns))])
    looked = Answer(first_in_rows(pieces, other, causal, block, rows, columns))
    beside = Answer()
    if not causal or columns < rows:
        beside = _by_proof(plain, terms_only, Term(i_to=rows, j_from=columns), causal, block, budget)
    below = _by_proof(plain if all_looked_at else upper, terms_only, Term(i_from=rows), causal, block, budget)
    if not all_looked_at and below.holds is not True:
        start = below.pair[0] // block * block if below.pair else below.settled
        known = sure.pair or looked.pair or _further_down(pieces, other, causal, block, rows)
        below = Answer(known, settled=max(rows * block, min(start, below.settled)))
    return first([looked, beside, below])


def _further_down(
    pieces: tuple[Piece, ...], other: Union, causal: bool, block: int, row: int
) -> tuple[int, int] | None:
    """Some such pair in a row at twice, four times, ... the row, or None."""
    parts = len(pieces) + len(other.terms) + len(other.randoms) + len(other.masks)
    while (row := 2 * row) * parts <= FURTHER:
        found = first_in_rows(pieces, other, causal, block, row + 1, row + 1, start=row)
        if found is not None:
            return found
    return None


def _extent(pieces: tuple[Piece, ...], other: Union, budget: Budget) -> tuple[int, int, bool]:
    """(rows, columns) to evaluate one by one, and whether no random or mask part reaches beyond them."""
    parts = [*(part for part, _ in pieces), *other.randoms, *other.masks]
    masks = [part for part in parts if isinstance(part, Mask)]
    random = any(isinstance(part, Random) for part in parts)
    rows = max([mask.rows for mask in masks] + ([budget.rows] if random else [0]))
    columns = max([mask.columns for mask in masks] + ([budget.rows] if random else [0]))
    seen = min(rows, max(1, LOOK // max(columns, 1)), budget.rows if random else rows)
    return seen, columns, not random and seen == rows


def _by_proof(
    pieces: tuple[tuple[Term, TokenRange], ...], other: Union, region: Term, causal: bool, block: int, budget: Budget
) -> Answer:
    """The smallest pair in a region of block pairs, random and mask parts left out."""
    answers = []
    for part, span in set(pieces):
        for rest in other.rest(causal):
            both = span.meet(rest)
            if both.empty:
                continue
            asked = meet(meet(part, both.touched(block)), region)
            try:
                found = first_outside(asked, other.terms, budget)
                answers.append(Answer(both.smallest(found[0], found[1], block)) if found else Answer())
            except Undecided as stop:
                known = both.smallest(stop.known[0], stop.known[1], block) if stop.known else None
                answers.append(Answer(known, settled=stop.decided * block))
    return first(answers) if answers else Answer(settled=INFINITY)
