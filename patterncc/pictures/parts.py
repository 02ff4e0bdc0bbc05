"""Which part of a layout keeps a block: what every picture is drawn from, in plain Python.

A layout is a union, so a block may be kept by several parts; it is drawn as kept by the first, in the
order of the layout's text. Blocks that only a window or a sink given in tokens touches come last: they are
kept in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from patterncc.ir.draw import draw
from patterncc.ir.layout import KEY, Layout, Mask, Random, Term
from patterncc.ir.tokens import touched_terms

KINDS = (
    "dense",
    "local",
    "stride",
    "sink",
    "chunk",
    "globals",
    "random",
    "mask",
)  # the language's keys, in the legend's order


@dataclass(frozen=True)
class Part:
    """One part of a layout: the key of the language that it belongs to, its text, whether it keeps whole blocks."""

    kind: str
    text: str
    whole: bool = True


def parts_of(layout: Layout) -> tuple[Part, ...]:
    """The parts of a layout, in the order in which they claim a block.

    >>> [part.kind for part in parts_of(Layout.parse("d<2 | j%4==3 | j<1 | sink 20 tokens"))]
    ['local', 'stride', 'sink', 'sink']
    >>> [part.kind for part in parts_of(Layout.parse("j<2 | 0<=i<2"))]  # the same rows and columns: not a sink
    ['globals', 'globals']
    """
    rows = {(term.i_from or 0, term.i_to) for term in layout.terms if term.i_to is not None}
    columns = {(0, term.j_to) for term in layout.terms if kind_of(term) == "sink"} & rows  # globals on both sides
    parts = [Part("globals" if (0, term.j_to) in columns else kind_of(term), str(term)) for term in layout.terms]
    parts += [Part("chunk", str(Layout(chunk=layout.chunk)))] if layout.chunk else []
    parts += [Part("random", str(Layout(random=layout.random)))] if layout.random else []
    parts += [Part("mask", f"mask {layout.mask.rows}x{layout.mask.columns}")] if layout.mask else []
    parts += [Part("local", str(Layout(window=layout.window)), whole=False)] if layout.window else []
    parts += [Part("stride", str(Layout(bands=(band,))), whole=False) for band in layout.bands]
    parts += [Part("sink", str(Layout(sink=layout.sink)), whole=False)] if layout.sink else []
    return tuple(parts)


def kind_of(term: Term) -> str:
    """The key of the language that such a term comes from.

    >>> kind_of(Term.parse("j<1")), kind_of(Term.parse("4<=d<8 & (i-j)%2==0")), kind_of(Term.parse("3<=i<4"))
    ('sink', 'stride', 'globals')
    """
    if term.every > term.width:
        return "stride"
    if (term.i_from, term.i_to) != (None, None):
        return "globals"
    if (term.j_from, term.j_to) != (None, None):
        return "globals" if term.j_from else "sink"
    return "dense" if term.d_to is None and (term.d_from or 0) <= 0 else "local"


def row_parts(layout: Layout, i: int, columns: int, *, causal: bool, block: int) -> list[int]:
    """For each column of row i: 1 + the number of the first part that keeps it, 0 where none does.

    >>> row_parts(Layout.parse("d<2 | j%4==0"), 6, 8, causal=True, block=64)
    [2, 0, 0, 0, 2, 1, 1, 0]
    """
    found = [0] * columns
    end = min(columns, i + 1) if causal else columns
    claims = list(enumerate(_spans_of_parts(layout, i, end, block), start=1))
    for number, spans in reversed(claims):  # so that the first part writes last
        for span in filter(None, spans):
            found[span.start : span.stop : span.step] = [number] * len(span)
    return found


def density(layout: Layout, rows: int, *, causal: bool, block: int) -> float:
    """Kept token pairs / (causal) token pairs over the first `rows` rows and columns, counted.

    >>> density(Layout.parse("d<2 | j%4==0"), 4, causal=True, block=64)  # 9 of 10 blocks
    0.8754863813229572
    """
    whole = sum(part.whole for part in parts_of(layout))
    kept = 0
    for i in range(rows):
        numbers = row_parts(layout, i, rows, causal=causal, block=block)
        kept += (rows - numbers.count(0)) * block * block  # as if all were whole: less what some of them lack
        lacking = {i} if numbers[i] else set()
        if layout.window or layout.sink or layout.bands:
            lacking |= {j for j, number in enumerate(numbers) if number > whole}
        for j in lacking:
            sink = min(max(layout.sink - j * block, 0), block) if numbers[j] > whole else block
            kept -= block * block - _pairs(i - j, block, sink, layout.window or (0, 1), layout.bands, causal)
    tokens = rows * block
    return kept / (tokens * (tokens + 1) // 2 if causal else tokens * tokens)


def _spans_of_parts(layout: Layout, i: int, columns: int, block: int) -> Iterator[Iterator[range]]:
    """The columns below `columns` that each part of `parts_of` keeps in row i, as ranges."""
    for term in layout.terms:
        yield _spans_of_term(term, i, columns)
    if layout.chunk:
        first = i // layout.chunk * layout.chunk
        yield iter([range(first, min(first + layout.chunk, columns))])
    if layout.random:
        yield _spans_of_random(layout.random, i, columns)
    if layout.mask:
        yield _spans_of_mask(layout.mask, i, columns)
    bands = [Layout(bands=(band,)) for band in layout.bands]
    for partial in (Layout(window=layout.window), *bands, Layout(sink=layout.sink)):
        for term in touched_terms(partial, causal=False, block=block):
            yield _spans_of_term(term, i, columns)


def _spans_of_term(term: Term, i: int, columns: int) -> Iterator[range]:
    if (term.i_from is not None and i < term.i_from) or (term.i_to is not None and i >= term.i_to):
        return
    low = max(0, term.j_from or 0, i - term.d_to + 1 if term.d_to is not None else 0)
    high = min(
        columns,
        term.j_to if term.j_to is not None else columns,
        i - term.d_from + 1 if term.d_from is not None else columns,
    )
    if term.width >= term.every:
        yield range(low, high)
        return
    for residue in range(term.width):
        wanted = term.offset + residue if term.anchor == KEY else i - term.offset - residue
        yield range(low + (wanted - low) % term.every, high, term.every)


def _spans_of_random(random: Random, i: int, columns: int) -> Iterator[range]:
    yield from (range(j, j + 1) for j in draw(i, random.blocks, random.seed) if j < columns)


def _spans_of_mask(mask: Mask, i: int, columns: int) -> Iterator[range]:
    if i < mask.rows:
        for j in range(min(columns, mask.columns)):
            byte, bit = divmod(i * mask.columns + j, 8)
            if mask.bits[byte] >> (7 - bit) & 1:
                yield range(j, j + 1)


@lru_cache(maxsize=4096)
def _pairs(
    d: int, block: int, sink: int, window: tuple[int, int], bands: tuple[tuple[int, int | None], ...], causal: bool
) -> int:
    """Token pairs of a block at distance d: its first `sink` key tokens, and those within the window or a band."""
    before, after = window
    count = 0
    for t in range(d * block, (d + 1) * block):  # counted from the key block's first token
        end = min(max(t + 1, 0), block) if causal else block
        first = min(sink, end)
        count += first + max(0, min(end, t + after) - max(first, t - before + 1))
        for low, high in bands:  # beyond the window, no two of them touch
            count += max(0, min(end, t - low + 1) - max(first, 0 if high is None else t - high + 1))
    return count
