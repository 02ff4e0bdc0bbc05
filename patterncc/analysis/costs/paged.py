"""Keys that an engine with pages must hold: its block tables serve all heads of a layer, so a page lives while any head
reads any of it."""

from __future__ import annotations

from patterncc.analysis.costs.live import held
from patterncc.ir.classes import Classes

PAGE = 16  # tokens of a page, as vLLM has them unless told otherwise; it divides every block


def paged_tokens(classes: Classes, layer: int, length: int) -> int:
    """Tokens of the pages of one layer that a query from the newest token's on may still read, whole pages.

    A window of N tokens lies in N / page pages or in one more, as its ends fall.

    >>> from patterncc.ir.layout import Layout
    >>> one = Classes("x", 64, True, 64, 2, 1, (Layout.parse("d<4 | j%8==0"), Layout.parse("d<4 | j%8==4")), ((0, 1),))
    >>> paged_tokens(one, 0, 6400) // 64
    28
    """
    if not classes.causal:
        return -(-length // PAGE) * PAGE
    kept = [classes.layouts[k] for k in sorted(set(classes.of[layer]))]
    return held(tuple(kept), classes.block, length, PAGE).tokens
