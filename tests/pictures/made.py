"""Patterns to draw."""

from __future__ import annotations

from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout


def one_layer(*texts: str, name: str = "made", causal: bool = True, block: int = 16) -> Classes:
    """A head for every layout."""
    layouts = tuple(map(Layout.parse, texts))
    return Classes(name, block, causal, 64, len(layouts), len(layouts), layouts, (tuple(range(len(layouts))),))


def everything(name: str = "everything") -> Classes:
    """Every kind of part, in four heads."""
    return one_layer(
        "d<3 | j<1 | random 2 seed 3 | sink 100 tokens",
        "d<1 | window 70,1 tokens | sink 4 tokens",
        "d<2 | 2<=d<12 & (i-j)%2==0 | 12<=d & j%4 in 1:3 | 5<=i<6",
        "d<1 | mask 20x12 " + "a5" * 30,
        name=name,
    )
