"""Whether every query token of every head attends something, for every length.

Causal: every row keeps its own block's column, so that token 0 of each block attends itself. A token window and a
chunk hold t = u, so each is enough; a token sink is enough for the rows that it reaches; else some term must hold on
the diagonal d = 0, which `outside` decides on the region 0 <= d < 1.

Not causal: at the shortest length that has query token t, the keys are 0 .. t. So every length gives every row a column
iff each t attends some u <= t. A window or a token sink is enough (t = u, u = 0), and so is a term on the diagonal.
Otherwise row i keeps a column of 0 .. i iff some term does; each term's rows with a column are found by arithmetic (the
first member of its residue in the range that its bounds leave), and are periodic beyond the bounds:

Lemma. If all finite bounds of a term are at most T and its `every` is s, then for i >= 2 T + 2 s row i keeps a column
of 0 .. i iff row i + s does.
Proof. Among the columns of row i, (i, j) -> (i + s, j + s) keeps d and residues, and bounds on j and i when j >= T;
(i, j) -> (i + s, j) keeps j, i's bounds, a key residue, and a query residue too, since i - j changes by s; bounds on
d stay when d >= T. For i >= 2 T + 2 s either j >= T + s or d >= T + s, so one of the moves and its inverse applies.
"""

from __future__ import annotations

from math import lcm

from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.finite import keeps
from patterncc.analysis.geometry.outside import first_outside
from patterncc.analysis.scopes import layer_classes
from patterncc.analysis.verdict import Verdict, Witness, proof_of
from patterncc.ir.classes import Classes
from patterncc.ir.layout import KEY, Layout, Term
from patterncc.ir.tokens import whole_terms
from patterncc.lazy import np


def rows(classes: Classes, budget: Budget) -> tuple[Verdict, ...]:
    """One verdict a layer class: the smallest row that keeps nothing, over its heads."""
    answers = [empty_row(layout, classes.causal, classes.block, budget) for layout in classes.layouts]
    verdicts = []
    for layers in layer_classes(classes):
        row = classes.of[layers[0]]
        settled = min(answers[k].settled for k in row)
        failing = [(answers[k].pair, head) for head, k in enumerate(row) if answers[k].pair]
        pair, head = min(failing) if failing else (None, 0)
        answer = Answer(pair, settled)
        witness = None if pair is None else Witness(pair[0] // classes.block, None, pair[0], None)
        own = "its own block's column" if classes.causal else "a column"
        note = f"every row of every head keeps {own}"
        if pair is not None:
            heads = sorted(head for _, head in failing)
            many = f" ({len(heads)} of {len(row)} heads fail)" if len(row) > 1 else ""
            note = f"head {head} does not keep {own} in this row{many}"
        elif answer.holds is None:
            note = "no row without a column up to there"
        verdicts.append(
            Verdict(
                "rows", "head", layers, answer.holds, proof_of(answer), witness, note, heads=(head,) if failing else ()
            )
        )
    return tuple(verdicts)


def empty_row(layout: Layout, causal: bool, block: int, budget: Budget) -> Answer:
    """The first query token that attends nothing (causal: nothing of its own block), as (t, 0)."""
    is_on_diagonal = layout.window or layout.chunk or any(low == 0 for low, _ in layout.bands)
    if is_on_diagonal or (layout.sink and not causal):
        return Answer()
    start = -(-layout.sink // block)  # the rows before it attend the sink in their own block
    terms = layout.terms + whole_terms(layout, causal=causal, block=block)
    region = Term(d_from=0, d_to=1, i_from=start)
    try:
        if first_outside(region, terms, budget) is None:
            return Answer()
    except Undecided as stop:
        if causal and stop.known is None and not (layout.random or layout.mask):
            return Answer(settled=stop.decided * block)
    if layout.random or layout.mask:
        return _looked_at(layout, terms, causal, block, start, budget)
    if causal:
        try:
            found = first_outside(region, terms, budget)
            return Answer((found[0] * block, 0)) if found else Answer()
        except Undecided as stop:
            return Answer((stop.known[0] * block, 0) if stop.known else None, stop.decided * block)
    return _by_period(terms, block, budget)


def _looked_at(layout: Layout, terms: tuple[Term, ...], causal: bool, block: int, start: int, budget: Budget) -> Answer:
    """Row by row, up to the budget; a mask keeps nothing below its last row, so the terms decide there."""
    end = max(budget.rows if layout.random else 0, layout.mask.rows if layout.mask else 0)
    parts = (*terms, *(p for p in (layout.random, layout.mask) if p is not None))
    for low in range(start, end, 256):
        i = np.arange(low, min(low + 256, end))
        j = np.arange(int(i[-1]) + 1)
        seen = (j[None, :] == i[:, None]) if causal else (j[None, :] <= i[:, None])
        kept = np.zeros(seen.shape, bool)
        for part in parts:
            kept |= keeps(part, i, len(j))
        empty = ~(kept & seen).any(1)
        if empty.any():
            return Answer(((low + int(np.argmax(empty))) * block, 0))
    if layout.random:
        return Answer() if layout.random.blocks and not causal else Answer(settled=end * block)
    if not causal:
        return _by_period(terms, block, budget, end)
    try:
        found = first_outside(Term(d_from=0, d_to=1, i_from=max(start, end)), terms, budget)
        return Answer((found[0] * block, 0)) if found else Answer()
    except Undecided as stop:
        return Answer((stop.known[0] * block, 0) if stop.known else None, stop.decided * block)


def _by_period(terms: tuple[Term, ...], block: int, budget: Budget, start: int = 0) -> Answer:
    bounds = [x for t in terms for x in (t.d_from, t.d_to, t.j_from, t.j_to, t.i_from, t.i_to) if x is not None]
    T = max((abs(x) for x in bounds), default=0)
    P = lcm(*(t.every for t in terms))
    end = start + 2 * T + 3 * P
    seen = min(end, start + (1 << 20))
    i = np.arange(start, seen)
    empty = np.ones(len(i), bool)
    for term in terms:
        empty &= ~_has_column(term, i)
    if empty.any():
        return Answer(((start + int(np.argmax(empty))) * block, 0))
    return Answer() if seen == end else Answer(settled=seen * block)


def _has_column(term: Term, i: np.ndarray) -> np.ndarray:
    """Whether row i keeps a column of 0 .. i, elementwise."""
    low = np.full(len(i), max(term.j_from or 0, 0))
    high = i + 1 if term.j_to is None else np.minimum(i + 1, term.j_to)
    if term.d_to is not None:
        low = np.maximum(low, i - term.d_to + 1)
    if term.d_from is not None:
        high = np.minimum(high, i - term.d_from + 1)
    if term.width < term.every:
        if term.anchor == KEY:
            behind = (low - term.offset) % term.every
            low = np.where(behind < term.width, low, low + term.every - behind)
        else:  # d runs down as j runs up: the first j with (i - j - offset) mod every < width
            ahead = (i - low - term.offset) % term.every
            low = np.where(ahead < term.width, low, low + ahead - term.width + 1)
    kept = low < high
    for bound, after in ((term.i_from, True), (term.i_to, False)):
        if bound is not None:
            kept &= (i >= bound) if after else (i < bound)
    return kept
