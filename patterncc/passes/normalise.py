"""Write each layout in its shortest form, and merge the classes whose layouts are then equal."""

from __future__ import annotations

from dataclasses import replace

from patterncc.debug import traced
from patterncc.ir.classes import Classes
from patterncc.ir.filled import filled
from patterncc.ir.layout import Layout, Mask, Term
from patterncc.ir.terms import contains, simplify
from patterncc.ir.tokens import ceil_div, joined, touched_terms, whole_terms
from patterncc.passes.closed_form import closed_form


@traced
def normalise(classes: Classes) -> Classes:
    """The same meaning: terms sorted, none inside another, no part that the others make idle, no two classes alike.

    >>> a, b = Layout.parse("16<=d & j%16==3 | d<9 | 4<=d<16"), Layout.parse("d<16 | j%16==3 | window 64,1 tokens")
    >>> print(normalise(Classes("demo", 64, True, 128, 2, 1, (a, b), ((0, 1),))))
    demo: block 64, causal, head_dim 128, heads 2, kv_heads 1
    class 0: d<16 | j%16==3
    layers 0: 0*2
    """
    numbers: dict[object, int] = {}
    layouts: list[Layout] = []
    renumbered: list[int] = []
    for layout in classes.layouts:
        layout = normal_layout(layout, causal=classes.causal, block=classes.block)
        plain = replace(layout, random=None, mask=None) if layout.random or layout.mask else layout
        plain = replace(plain, terms=filled(plain.terms, causal=classes.causal))
        form = closed_form(plain, classes.causal)
        others = layout.window, layout.bands, layout.sink, layout.random, layout.mask, layout.chunk
        meaning = (form or plain.terms, *others)
        if meaning not in numbers:
            numbers[meaning] = len(layouts)
            layouts.append(layout)
        renumbered.append(numbers[meaning])
    of = tuple(tuple([renumbered[k] for k in row]) for row in classes.of)
    return replace(classes, layouts=tuple(layouts), of=of)


def normal_layout(layout: Layout, *, causal: bool, block: int) -> Layout:
    """One layout in its shortest form.

    >>> print(normal_layout(Layout.parse("window 130,1 tokens | sink 70 tokens"), causal=True, block=64))
    d<2 | j<1 | window 130,1 tokens | sink 70 tokens
    """
    if layout.bands:
        layout = _joined(layout)
    terms = simplify(layout.terms + whole_terms(layout, causal=causal, block=block), causal=causal)
    if terms == (Term(),):
        return Layout(terms)
    chunk, near = layout.chunk, Term(d_from=None if causal else 1 - layout.chunk, d_to=layout.chunk)
    if any(contains(term, near) for term in terms):
        chunk = 0
    window = layout.window and _window(layout.window, terms, causal, block)
    sink = layout.sink
    if any(contains(term, Term(j_from=sink // block, j_to=ceil_div(sink, block))) for term in terms):
        sink = 0
    random = layout.random if layout.random and layout.random.blocks else None
    mask = layout.mask and _mask(layout.mask, causal)
    return Layout(terms, window, sink, random, mask, chunk, _bands(layout.bands, terms, block))


def _joined(layout: Layout) -> Layout:
    """The layout with its bands joined into the fewest; a band that begins at 0 becomes the window."""
    spans = [*layout.bands, *([(0, layout.window[0])] if layout.window else [])]
    bands = joined(spans)
    if bands[0] == (0, None):
        return Layout((Term(),))
    window = (bands[0][1] or 1, 1) if bands[0][0] == 0 else None
    return replace(layout, window=window, bands=bands[1:] if window else bands)


def _bands(
    bands: tuple[tuple[int, int | None], ...], terms: tuple[Term, ...], block: int
) -> tuple[tuple[int, int | None], ...]:
    """The bands that are not redundant: some block that they touch is not kept whole by the terms."""
    left = []
    for band in bands:
        (term,) = touched_terms(Layout(bands=(band,)), causal=True, block=block)
        if not any(contains(other, term) for other in terms):
            left.append(band)
    return tuple(left)


def _window(window: tuple[int, int], terms: tuple[Term, ...], causal: bool, block: int) -> tuple[int, int] | None:
    """The window without the sides whose blocks are all kept whole by terms; None when neither side is left."""
    before, after = window
    back = Term(d_from=None if causal else 0, d_to=ceil_div(before - 1, block) + 1)
    ahead = Term(d_from=-ceil_div(after - 1, block), d_to=1)
    behind_kept = any(contains(term, back) for term in terms)
    ahead_kept = causal or any(contains(term, ahead) for term in terms)
    if behind_kept and ahead_kept:
        return None
    return 1 if behind_kept else before, 1 if ahead_kept else after


def _mask(mask: Mask, causal: bool) -> Mask | None:
    """The mask without what the causal cut drops anyway and without empty rows and columns at its end."""
    import numpy as np

    bits = np.unpackbits(np.frombuffer(mask.bits, np.uint8), count=mask.rows * mask.columns)
    kept = bits.reshape(mask.rows, mask.columns)
    kept = np.tril(kept) if causal else kept
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    if not len(rows):
        return None
    height, width = int(rows[-1]) + 1, int(columns[-1]) + 1
    return Mask(height, width, np.packbits(kept[:height, :width]).tobytes())
