"""S2-Attention's condition on KV caches: a token once dropped is never taken up again, for every length.

For u <= t < t', attends(t', u) implies attends(t, u); per head, and over the union of a KV head's query heads, which is
what its cache must hold. Decided at tokens: windows (0 <= t - u < before) and sinks are monotone by themselves, so the
later pair is kept by a block term, and the earlier one lies in the token span that windows and sinks leave.

Theorem (return). In a box of earlier block pairs that no bound cuts, not kept means j in A and d in D (`outside`); a
term keeps the later pair (i', j), i' = j + d', when its bounds hold and j or d' is in its residue. For a column j,
the earliest gap is i = max(i0, j + d0), moved on to the next d in D, and the earliest return is the first i' > i
within the term. Without query residues both only move up as j does, so the smallest column for which they exist gives
the smallest (i', j). With them, i' - j is constant from the column on at which the bounds on i and i' no longer
matter, so the columns are tried in order up to there. A column exists for all this iff it lies in a range given by
the bounds (below) and in A. The smallest tokens are t' = i' B and u = max(j B, sink): the gap holds some t for that
u, by the lemma of `union`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.box import INFINITY, Box, box_of
from patterncc.analysis.geometry.budget import Budget, Undecided
from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.finite import keeps, kept_tokens, kept_whole
from patterncc.analysis.geometry.gaps import Gap, Gaps
from patterncc.analysis.geometry.residues import Arc, complement, first_free
from patterncc.analysis.geometry.union import TokenRange, Union, union
from patterncc.analysis.scopes import kv_groups, layer_classes
from patterncc.analysis.verdict import Verdict, at_tokens, proof_of
from patterncc.ir.classes import Classes
from patterncc.ir.layout import KEY, Layout, Term
from patterncc.ir.terms import contains
from patterncc.ir.tokens import whole_terms
from patterncc.lazy import np

SCOPES = ("head", "group")
LOOKED_AT = 4096  # tokens, where bands of distances meet other parts
Pair = tuple[int, int]  # (later row, column)


def kv(classes: Classes, scope: str, budget: Budget) -> tuple[Verdict, ...]:
    """One verdict a layer class: the smallest return, over heads or over KV heads' groups."""
    known: dict[frozenset[int], Answer] = {}
    verdicts = []
    for layers in layer_classes(classes):
        groups = _groups(classes, scope, layers[0])
        found: list[tuple[Answer, tuple[int, ...]]] = []
        for members in groups:
            key = frozenset(classes.of[layers[0]][head] for head in members)
            if key not in known:
                kept = frozenset(classes.layouts[k] for k in key)
                known[key] = first_return(kept, classes.causal, classes.block, budget)
            found.append((known[key], members))
        failing = [(answer.pair, members) for answer, members in found if answer.pair]
        settled = min(answer.settled for answer, _ in found)
        if not failing:
            answer = Answer(settled=settled)
            open_note = "no key is taken up again up to there"
            note = "what a row has dropped, no later row takes up again" if answer.holds else open_note
            verdicts.append(Verdict("kv", scope, layers, answer.holds, proof_of(answer), None, note))
            continue
        pair, heads = min(failing)
        who = f"head {heads[0]}" if scope == "head" else f"KV head {heads[0] // classes.shape(layers[0]).group}"
        many = f" ({len(failing)} of {len(found)} fail)" if len(found) > 1 else ""
        note = f"{who} attends this key again after a row that did not{many}"
        proof, witness = proof_of(Answer(pair, settled)), at_tokens(pair, classes.block)
        verdicts.append(Verdict("kv", scope, layers, False, proof, witness, note, heads=heads))
    return tuple(verdicts)


def _groups(classes: Classes, scope: str, layer: int) -> Iterable[tuple[int, ...]]:
    return kv_groups(classes, layer) if scope == "group" else ((h,) for h in range(len(classes.of[layer])))


def first_return(kept: frozenset[Layout], causal: bool, block: int, budget: Budget) -> Answer:
    """The smallest (later query token, key token) at which the union takes a key up again."""
    whole = union(kept)
    if whole.bands:
        return _beyond_a_gap(whole, kept, block, budget)
    if not whole.opaque and all(map(_begins_at_once, whole.terms)):
        return Answer()
    before = whole.window[0] if whole.window else 0
    gap = TokenRange(lag_from=max(before, 0), key_from=whole.sink)
    region = box_of(gap.touched(block)).tight()
    if whole.opaque:
        return Answer() if _no_gap(region, whole, budget) else _looked_at(whole, gap, block, budget)
    gaps = Gaps(region, whole.terms, budget, later=True)
    best: Pair | None = None
    doubt: float = INFINITY  # returns in rows up to this one are settled
    while True:
        last = min(INFINITY if best is None else best[0], doubt)  # no later gap has a smaller return
        try:
            gap = gaps.next(last)
        except Undecided as stop:
            doubt = min(doubt, stop.decided)
            break
        if gap is None:
            break
        for bounds, term in gap.later:
            try:
                pair = _return(gap, bounds, term, budget)
            except Undecided as stop:
                doubt, pair = min(doubt, stop.decided), stop.known
            if pair is not None and (best is None or pair < best):
                best = pair
    tokens = None if best is None else (best[0] * block, max(best[1] * block, whole.sink))
    return Answer(tokens, doubt * block)


def _beyond_a_gap(whole: Union, kept: frozenset[Layout], block: int, budget: Budget) -> Answer:
    """`first_return` where there are bands of distances beyond the window. If the layouts have only bands, windows and
    sinks, the nearest band behind a gap takes up the first key that is no sink; otherwise tokens are tried one by one,
    up to LOOKED_AT."""
    window, low = whole.window[0] if whole.window else 0, whole.bands[0][0]
    sinks = [term.j_to * block for term in whole.terms if term.j_to is not None and term == Term(j_to=term.j_to)]
    whole = replace(whole, sink=max([whole.sink, *sinks]))
    in_tokens = Layout(window=(window, 1) if window else None, bands=whole.bands, sink=whole.sink)
    known = whole_terms(in_tokens, causal=True, block=block)
    if not whole.opaque and all(any(contains(of, term) for of in known) for term in whole.terms):
        return Answer((low + whole.sink, whole.sink))
    if all(_no_gap(box_of(rest.touched(block)).tight(), whole, budget) for rest in whole.rest(True)):
        return Answer()
    bound, period = extent(whole)
    ends = [(bound + 1) * block, window, whole.sink, *(end or 0 for band in whole.bands for end in band)]
    need = 2 * max(ends) + 3 * period * block  # tokens move by a period as blocks do, see `_looked_at`
    tokens = min(need, LOOKED_AT) // block * block + block
    attended = np.logical_or.reduce([kept_tokens(layout, True, block, tokens) for layout in kept])
    dropped = np.zeros(tokens, bool)
    for t in range(tokens):
        again = attended[t, : t + 1] & dropped[: t + 1]
        if again.any():
            return Answer((t, int(np.argmax(again))))
        dropped[: t + 1] |= ~attended[t, : t + 1]
    return Answer() if tokens >= need and not whole.randoms else Answer(settled=tokens)


def _begins_at_once(term: Term) -> bool:
    """Whether the rows that keep a column j by this term are j, j + 1, ... without a gap. If this holds for every term,
    it holds for their union with windows and sinks: no dropped key is taken up again."""
    by_rows = term.width < term.every and term.anchor != KEY
    return not by_rows and (term.d_from or 0) <= 0 and (term.i_from or 0) <= 0


def _return(found: Gap, later: Box, term: Term, budget: Budget) -> Pair | None:
    """The smallest (later row, column): the column has a gap in the box, and the term keeps it in the later row."""
    gap, key, query = found.box, found.key, found.query
    d0, e0 = max(gap.d0, 0), max(later.d0, 1)  # the gap's distances start at d0, the return's at e0
    residue: frozenset[Arc] = frozenset()
    if term.width < term.every:
        rest = complement((term.every, term.offset, term.width))
        assert rest is not None
        residue = frozenset((rest,))
        if term.anchor == KEY:
            key, residue = key | residue, frozenset()
    low = max(gap.j0, later.j0, gap.i0 - gap.d1 + 1, later.i0 - later.d1 + 1, gap.i0 + 1 - later.d1 + 1)
    high = min(gap.j1, later.j1, gap.i1 - d0, later.i1 - e0, later.i1 - d0 - 1)
    if low >= high or d0 + 1 >= later.d1 or gap.i0 + 1 >= later.i1:
        return None
    free_from = max(gap.i0 - d0, later.i0 - e0, low)  # from here on rows' lower bounds do not matter
    best: Pair | None = None
    j = int(low) - 1
    try:
        for _ in range(budget.columns):
            following = first_free(key, j + 1, high, budget)
            if following is None:
                return best
            j = following
            if best is not None and max(j + d0 + 1, j + e0, later.i0, gap.i0 + 1) >= best[0]:
                return best
            d = first_free(query, int(max(d0, gap.i0 - j)), min(gap.d1, gap.i1 - j), budget)
            if d is not None:
                start = int(max(d + 1, e0, later.i0 - j))
                e = first_free(residue, start, min(later.d1, later.i1 - j), budget)
                if e is not None and (best is None or (j + e, j) < best):
                    best = j + e, j
            if j >= free_from:  # a column further on sees the same distances, fewer of them at the far end
                return best
    except Undecided:
        pass
    raise Undecided(max(j, 0), best)  # later columns have later rows: nothing before row j is left


def _no_gap(region: Box, whole: Union, budget: Budget) -> bool:
    """Whether the terms alone are known to keep the region: then random and mask parts take nothing up again."""
    try:
        return Gaps(region, whole.terms, budget).next() is None
    except Undecided:
        return False


def _looked_at(whole: Union, gap: TokenRange, block: int, budget: Budget) -> Answer:
    """`first_return` row by row, noting which columns have had a gap so far: random parts up to the budget, masks until
    they end.

    With masks alone a box of side 2 S + 3 P, S the largest bound and P a common period, decides: beyond it, a return
    moves to an earlier one by a period, as in `outside`.
    """
    bound, period = extent(whole)
    need = 2 * bound + 3 * period
    side = budget.rows if whole.randoms else min(need, 8 * budget.rows)
    dropped = np.zeros(side, bool)
    touched = gap.touched(block)
    low, high = 0, min(side, 16)  # most returns are among the first rows
    while low < side:
        i = np.arange(low, high)
        kept = kept_whole(whole, i, high)
        missing = ~kept & keeps(touched, i, high)
        for k, row in enumerate(i.tolist()):
            again = kept[k, :row] & dropped[:row]
            if again.any():
                return Answer((row * block, max(int(np.argmax(again)) * block, whole.sink)))
            dropped[: row + 1] |= missing[k, : row + 1]
        low, high = high, min(side, 4 * high, high + 256)
    return Answer() if side == need and not whole.randoms else Answer(settled=side * block)
