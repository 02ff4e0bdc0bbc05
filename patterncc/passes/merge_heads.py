"""Give heads whose layouts are equal one class, over all layers, so that each is lowered and stored once."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from patterncc.debug import traced
from patterncc.ir.classes import Classes, Layouts
from patterncc.ir.layout import Layout

if TYPE_CHECKING:
    from patterncc.language import Pattern


@traced
def merge_heads(pattern: Pattern, layouts: Layouts) -> Classes:
    """Classes numbered in the order in which layers and heads first use them.

    >>> from types import SimpleNamespace
    >>> from patterncc.language.shape import Shape
    >>> facts = {"block": 64, "causal": True, "softcap": None, "scale": None}
    >>> pattern = SimpleNamespace(name="demo", shapes=(Shape(3, 1, 128),) * 2, **facts)
    >>> a, b = Layout.parse("d<16 | j%4==0"), Layout.parse("all")
    >>> print(merge_heads(pattern, Layouts((a, b, a), ((0, 2, 1), (1, 1, 1)))))
    demo: block 64, causal, head_dim 128, heads 3, kv_heads 1
    class 0: d<16 | j%4==0
    class 1: all
    layers 0: 0*2 1
    layers 1: 1*3
    """
    classes: dict[Layout, int] = {}
    layers = dict.fromkeys(layouts.of)  # of many that are equal, one
    class_of = {k: classes.setdefault(layouts.distinct[k], len(classes)) for k in dict.fromkeys(chain(*layers))}
    rows = {row: tuple([class_of[k] for k in row]) for row in layers}
    shape, *others = dict.fromkeys(pattern.shapes)
    return Classes(
        name=pattern.name,
        block=pattern.block,
        causal=pattern.causal,
        head_dim=shape.head_dim,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        layouts=tuple(classes),
        of=tuple([rows[row] for row in layouts.of]),
        softcap=pattern.softcap or 0.0,
        sinks=shape.sinks,
        v_head_dim=shape.v_head_dim,
        shapes=pattern.shapes if others else (),
        scale=pattern.scale or 0.0,
    )
