"""Over which heads a property is asked: layer classes, and the scopes within them."""

from __future__ import annotations

from collections.abc import Iterator

from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.language.shape import Shape


def layer_classes(classes: Classes) -> tuple[tuple[int, ...], ...]:
    """Layers whose heads have equal layouts and sizes, as groups in order of their first layer.

    >>> layout = Layout.parse("all")
    >>> layer_classes(Classes("x", 64, True, 64, 1, 1, (layout, layout), ((0,), (1,), (0,))))
    ((0, 2), (1,))
    """
    groups: dict[tuple[Shape, tuple[int, ...]], list[int]] = {}
    for layer, row in enumerate(classes.of):
        groups.setdefault((classes.shape(layer), row), []).append(layer)
    return tuple(tuple(layers) for layers in groups.values())


def kv_groups(classes: Classes, layer: int) -> Iterator[tuple[int, ...]]:
    """The query heads of each KV head of a layer."""
    shape = classes.shape(layer)
    for g in range(shape.kv_heads):
        yield tuple(range(g * shape.group, (g + 1) * shape.group))


def layouts(classes: Classes, layer: int, heads: tuple[int, ...]) -> tuple[Layout, ...]:
    """The distinct layouts of some heads of a layer, in order of their heads."""
    return tuple(classes.layouts[k] for k in dict.fromkeys(classes.of[layer][head] for head in heads))
