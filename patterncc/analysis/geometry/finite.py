"""Random and mask parts, for which there is no closed form: they are evaluated row by row as Boolean arrays."""

from __future__ import annotations

from patterncc.analysis.geometry.residues import INFINITY
from patterncc.analysis.geometry.union import TokenRange, Union, union
from patterncc.ir.bitmap import draw_rows
from patterncc.ir.layout import KEY, Layout, Mask, Random, Term
from patterncc.lazy import np

CHUNK = 1 << 20  # block pairs held in memory at a time


def keeps(part: Term | Random | Mask, i: np.ndarray, columns: int) -> np.ndarray:
    """Which of the columns 0 .. columns-1 the part keeps whole in the (consecutive) rows i: bool [rows, columns]."""
    if isinstance(part, Term):
        return holds(part, i[:, None], np.arange(columns)[None, :])
    kept = np.zeros((len(i), columns), bool)
    if isinstance(part, Random):
        drawn = draw_rows(part, i)
        inside = (drawn >= 0) & (drawn < columns)
        kept[np.nonzero(inside)[0], drawn[inside]] = True
        return kept
    rows = bits(part)[i[0] : i[-1] + 1, :columns]
    kept[: rows.shape[0], : rows.shape[1]] = rows
    return kept


def keeps_block(part: Random | Mask, i: int, j: int) -> bool:
    """Whether the part keeps one block pair, however far out.

    >>> keeps_block(Random(blocks=3, seed=0), 100, 16), keeps_block(Random(blocks=3, seed=0), 100, 17)
    (True, False)
    """
    if isinstance(part, Random):  # row i draws from the columns 0 .. i
        return j <= i and bool((draw_rows(part, np.array([i])) == j).any())
    return i < part.rows and j < part.columns and bool(bits(part)[i, j])


def bits(mask: Mask) -> np.ndarray:
    """The mask as bool [rows, columns]."""
    flat = np.unpackbits(np.frombuffer(mask.bits, np.uint8), count=mask.rows * mask.columns)
    return flat.reshape(mask.rows, mask.columns).astype(bool)


def kept_whole(union: Union, i: np.ndarray, columns: int) -> np.ndarray:
    """The blocks that the union keeps whole, in the rows i: bool [rows, columns]."""
    kept = np.zeros((len(i), columns), bool)
    for part in (*union.terms, *union.randoms, *union.masks):
        kept |= keeps(part, i, columns)
    return kept


def kept_tokens(layout: Layout, causal: bool, block: int, tokens: int) -> np.ndarray:
    """bool [tokens, tokens]: whether query token t attends key token u.

    >>> kept_tokens(Layout.parse("d<1 | sink 1 tokens"), True, 2, 4).astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    """
    return kept_together(union([layout]), causal, block, tokens)


def kept_together(whole: Union, causal: bool, block: int, tokens: int) -> np.ndarray:
    """bool [tokens, tokens]: whether query token t attends key token u in any of several layouts."""
    blocks = -(-tokens // block)
    i = np.arange(tokens) // block
    kept = kept_whole(whole, np.arange(blocks), blocks)[i[:, None], i[None, :]]
    t, u = np.arange(tokens)[:, None], np.arange(tokens)[None, :]
    if whole.window:
        kept |= (t - u < whole.window[0]) & (t - u > -whole.window[1])
    for low, high in whole.bands:
        kept |= (t - u >= low) & (t - u < (INFINITY if high is None else high))
    kept |= u < whole.sink
    return kept & (u <= t) if causal else kept


def first_in_rows(
    pieces: tuple[tuple[Term | Random | Mask, TokenRange], ...],
    other: Union,
    causal: bool,
    block: int,
    rows: int,
    columns: int,
    start: int = 0,
) -> tuple[int, int] | None:
    """The smallest token pair of block rows start <= i < rows, columns < columns that a piece keeps and `other` does
    not."""
    low, height = start, 16
    while low < rows:
        i = np.arange(low, min(low + height, rows))
        left = ~kept_whole(other, i, columns)
        candidates = []
        for part, span in pieces:
            whole = keeps(part, i, columns) & left
            for rest in other.rest(causal):
                both = span.meet(rest)
                if both.empty:
                    continue
                found = whole & keeps(both.touched(block), i, columns)
                at = np.flatnonzero(found.any(1))
                if at.size:
                    row = int(at[0])
                    candidates.append(both.smallest(low + row, int(np.argmax(found[row])), block))
        if candidates:
            return min(candidates)
        low, height = low + height, min(4 * height, max(1, CHUNK // max(columns, 1)))
    return None


def holds(term: Term, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Whether the term keeps the block pairs (i, j), elementwise with broadcasting."""
    d = i - j
    kept = np.ones(d.shape, bool)
    for x, low, high in ((d, term.d_from, term.d_to), (j, term.j_from, term.j_to), (i, term.i_from, term.i_to)):
        if low is not None:
            kept &= x >= low
        if high is not None and high != INFINITY:
            kept &= x < high
    if term.width < term.every:
        kept &= ((j if term.anchor == KEY else d) - term.offset) % term.every < term.width
    return kept
