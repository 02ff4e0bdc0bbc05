"""Over which heads a property is asked: layer classes, and the scopes within them."""

from __future__ import annotations

from collections.abc import Iterator

from patterncc.ir.layout import Classes, Layout


def layer_classes(classes: Classes) -> tuple[tuple[int, ...], ...]:
    """Layers whose heads have equal layouts, as groups in order of their first layer.

    >>> layout = Layout.parse("all")
    >>> layer_classes(Classes("x", 64, True, 64, 1, 1, (layout, layout), ((0,), (1,), (0,))))
    ((0, 2), (1,))
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for layer, row in enumerate(classes.of):
        groups.setdefault(row, []).append(layer)
    return tuple(tuple(layers) for layers in groups.values())


def kv_groups(classes: Classes) -> Iterator[tuple[int, ...]]:
    """The query heads of each KV head."""
    for g in range(classes.kv_heads):
        yield tuple(range(g * classes.group, (g + 1) * classes.group))


def layouts(classes: Classes, layer: int, heads: tuple[int, ...]) -> tuple[Layout, ...]:
    """The distinct layouts of some heads of a layer, in order of their heads."""
    return tuple(classes.layouts[k] for k in dict.fromkeys(classes.of[layer][head] for head in heads))
