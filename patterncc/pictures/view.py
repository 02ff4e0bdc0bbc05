"""What a picture shows of a pattern, as plain numbers: panels, coverage counts, live keys, row weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from patterncc.analysis.costs.live import live_of
from patterncc.errors import UsageError, numbered
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.language.ranges import spans
from patterncc.language.shape import Shape
from patterncc.pictures.palette import part_colour
from patterncc.pictures.parts import KINDS, parts_of, row_parts

MOST_ROWS = 1024  # more cells than a picture has pixels; past it drawing takes seconds


@dataclass(frozen=True)
class Panel:
    """One layout to draw, the heads that have it, and in which layers they do (empty: in all)."""

    heads: str
    layers: str
    layout: Layout

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (self.heads, self.layers)))


@dataclass(frozen=True)
class LayerClass:
    """Layers whose heads have the same layouts, and that have the same sizes."""

    layers: tuple[int, ...]
    of: tuple[int, ...]  # [head] -> class
    group: int  # query heads that share one KV head


def layer_classes(classes: Classes) -> tuple[LayerClass, ...]:
    """The layers of a pattern, equal ones together, in the order of their first layers."""
    together: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for layer, of in enumerate(classes.of):
        together.setdefault((of, classes.shape(layer).group), []).append(layer)
    return tuple(LayerClass(tuple(layers), *key) for key, layers in together.items())


def telling_layer(classes: Classes, layer: int | None = None) -> LayerClass:
    """The commonest layers of those whose heads differ most, or those with this layer among them."""
    chosen = [shared for shared in layer_classes(classes) if layer is None or layer in shared.layers]
    return max(chosen, key=lambda shared: (len(set(shared.of)), len(shared.layers)))


def shapes(classes: Classes) -> list[Shape]:
    """Heads, KV heads and widths of every layer."""
    return [classes.shape(layer) for layer in range(classes.layers)]


def panels_of(classes: Classes, layer: int | None, head: int | None) -> tuple[Panel, ...]:
    """The classes of a pattern, of one layer or of one head, each with a title that says whose layout it is."""
    check_choice(classes, layer, head)
    kinds = layer_classes(classes)
    if head is not None:
        where = f"layer {layer or 0}" if len(kinds) > 1 else ""
        return (Panel(f"head {head}", where, classes.layout(layer or 0, head)),)
    found: dict[int, list[tuple[str, str]]] = {}  # class -> heads and layers that have it
    for shared in (
        kinds if layer is None else [replace(kind, layers=(layer,)) for kind in kinds if layer in kind.layers]
    ):
        members: dict[int, list[int]] = {}
        for h, number in enumerate(shared.of):
            members.setdefault(number, []).append(h)
        where = spell("layer", shared.layers) if len(kinds) > 1 else ""
        for number, heads in members.items():
            who = "all heads" if len(heads) == len(shared.of) > 1 else spell("head", heads)
            found.setdefault(number, []).append((who, where))
    return tuple(_panel(titles, classes.layouts[number]) for number, titles in found.items())


def _panel(titles: list[tuple[str, str]], layout: Layout) -> Panel:
    who, where = titles[0]
    return Panel(who, f"{where}; and others" if len(titles) > 1 else where, layout)


def facts(classes: Classes) -> str:
    """The numbers of a pattern in one line."""
    sizes = set(shapes(classes))
    heads, kv_heads = (
        " or ".join(map(str, sorted(counts))) for counts in (({s.heads for s in sizes}), {s.kv_heads for s in sizes})
    )
    several = f" on {kv_heads} KV head{'s' * (kv_heads != '1')}" if kv_heads != heads else ""
    layers = f", {classes.layers} layers" if classes.layers > 1 else ""
    count = f"{heads} head{'s' * (heads != '1')}{several}{layers}"
    return f"{count}, blocks of {classes.block} tokens, {'causal' if classes.causal else 'not causal'}"


def check_choice(classes: Classes, layer: int | None, head: int | None) -> None:
    """A usage error when the pattern has no such layer or head."""
    heads = len(classes.of[layer if layer is not None and 0 <= layer < classes.layers else 0])
    for word, number, count in (("layer", layer, classes.layers), ("head", head, heads)):
        if number is not None and not 0 <= number < count:
            raise UsageError(f"{classes.name} has no {word} {number}", f"it has {numbered(word, count)}")


def check_rows(rows: int) -> int:
    """`rows`, or a usage error when so many cannot be drawn."""
    if not 1 <= rows <= MOST_ROWS:
        raise UsageError(f"cannot draw {rows} rows", f"a picture shows 1 to {MOST_ROWS} rows")
    return rows


def coverage(classes: Classes, of: Iterable[int], rows: int) -> list[list[int]]:
    """How many heads keep each block at least in part: [row][column]."""
    import numpy as np

    counts = np.zeros((rows, rows), np.int64)
    for number, heads in Counter(of).items():
        layout = classes.layouts[number]
        for i in range(rows):
            found = row_parts(layout, i, rows, causal=classes.causal, block=classes.block)
            counts[i] += heads * (np.array(found) > 0)
    return counts.tolist()


def swatches(layouts: Iterable[Layout], field: str, paper: str | None = None) -> list[tuple[str, str]]:
    """Every colour of a picture of such layouts, with its word; `field` is that of what is not kept.

    >>> swatches([Layout.parse("d<2 | sink 4 tokens")], "#eef0f3", "#ffffff")
    [('local', '#4477aa'), ('sink, in part', '#8bd3c8'), ('not kept', '#eef0f3')]
    """
    parts = {(part.kind, part.whole) for layout in layouts for part in parts_of(layout)}
    entries = [(kind, part_colour(kind, True)) for kind in KINDS if (kind, True) in parts]
    entries += [
        (f"{kind}, in part", part_colour(kind, False, paper or field)) for kind in KINDS if (kind, False) in parts
    ]
    return [*entries, ("not kept", field)]


def few(counts: Iterable[int], most: int = 8) -> list[int]:
    """At most `most` of the counts, ascending; always with 0, the smallest and the largest.

    >>> few(range(13), 7), few([2, 5])
    ([0, 1, 3, 5, 7, 9, 12], [2, 5])
    """
    counts = sorted(set(counts))
    none, some = counts[: counts[:1] == [0]], counts[counts[:1] == [0] :]
    room = most - len(none)
    if len(some) <= room:
        return counts
    return none + [some[k * (len(some) - 1) // (room - 1)] for k in range(room)]


def row_weights(layout: Layout, rows: int, *, causal: bool, block: int) -> list[int]:
    """How many columns each row keeps at least in part."""
    return [
        sum(map(bool, row_parts(layout, i, i + 1 if causal else rows, causal=causal, block=block))) for i in range(rows)
    ]


def live_tokens(layouts: Iterable[Layout], rows: int, block: int) -> list[int]:
    """How many key tokens a KV head must hold after each row, for query heads with these layouts. Causal patterns.

    >>> live_tokens([Layout.parse("d<2 | j%4==0")], 6, block=1)
    [1, 2, 3, 3, 3, 3]
    """
    live = live_of(tuple(layouts), block, rows)
    return [live.tokens((i + 1) * block) for i in range(rows)]


def spell(word: str, numbers: Iterable[int], most: int = 4) -> str:
    """A list of heads or layers, short.

    >>> spell("head", [3]), spell("head", [0, 1, 2, 5]), spell("layer", range(0, 32, 2))
    ('head 3', 'heads 0-2, 5', 'layers 0-30 by 2')
    """
    numbers = sorted(numbers)
    if len(numbers) == 1:
        return f"{word} {numbers[0]}"
    step = numbers[1] - numbers[0]
    if step > 1 and len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1, step)):
        return f"{word}s {numbers[0]}-{numbers[-1]} by {step}"
    texts = spans(numbers, shortest=3)
    if len(texts) > most:
        texts = [*texts[: most - 1], "…", texts[-1]]
    return f"{word}s {', '.join(texts)}"
