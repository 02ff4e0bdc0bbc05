"""Keys that an engine with pages must hold: its block tables serve all heads of a layer, so a page lives while any head
reads any of it."""

from __future__ import annotations

from patterncc.analysis.costs.live import held
from patterncc.ir.layout import Classes

PAGE = 16  # tokens of a page, as vLLM has them unless told otherwise


def paged_tokens(classes: Classes, layer: int, length: int, page: int = PAGE) -> int:
    """Tokens of the pages of one layer that a query from the newest token's on may still read, whole pages.

    What heads keep is counted in whole blocks, so the pages of a block live and die together where page divides block.

    >>> from patterncc.ir.layout import Layout
    >>> one = Classes("x", 64, True, 64, 2, 1, (Layout.parse("d<4 | j%8==0"), Layout.parse("d<4 | j%8==4")), ((0, 1),))
    >>> paged_tokens(one, 0, 6400) // 64
    28
    """
    if not classes.causal:
        return -(-length // page) * page
    kept = [classes.layouts[k] for k in sorted(set(classes.of[layer]))]
    live = held(tuple(kept), classes.block, length).tokens
    return -(-live // page) * page
