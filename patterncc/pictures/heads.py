"""The overview as a picture: a cell for every head of every layer, beside it what the kinds of cells mean."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from patterncc.errors import counted
from patterncc.ir.classes import Classes
from patterncc.pictures.overview import Kind, Overview
from patterncc.pictures.palette import FIELD, INK, PAPER, QUIET, part_colour
from patterncc.pictures.parts import parts_of, row_parts
from patterncc.pictures.scene import Cells, Label, Line, Rectangle, Scene, cut, merged
from patterncc.pictures.text import telling_rows
from patterncc.pictures.view import shapes

SIDE, TALL = 20.0, 480.0  # the largest cell, the tallest grid
GRID = 530.0  # room for a grid that has a legend beside it
NAMES, BAR = 34.0, 62.0  # room for the layers' numbers on the left, for their densities on the right
THUMB, ROW = 44.0, 60.0
THUMBS = 9  # kinds that are drawn small; where there are more, their words have to do


def at_a_glance(scene: Scene, classes: Classes, found: Overview, x: float, y: float, room: float) -> float:
    """Draw the grid and beside it the legend; their bottom."""
    scene.add(
        Label(x, y, "Every head (across) of every layer (down)", 12, INK, bold=True),
        Label(x, y + 16, note((classes,), found), 11, QUIET),
    )
    right, bottom = cells(scene, classes, found, 0, x, y + 24, GRID)
    right = max(right + 40, x + 300)
    return max(bottom, legend(scene, (classes,), found, right, y + 44, x + room - right))


def note(patterns: tuple[Classes, ...], found: Overview) -> str:
    """How the grid is to be read."""
    shares = "" if len(found.kinds) == 1 else ", more in the fuller colour"
    shared = any(shape.group > 1 for classes in patterns for shape in shapes(classes))
    groups = "; wider gaps part KV heads" if shared else ""
    return (
        f"kept: share of {'earlier ' * patterns[0].causal}tokens, at {counted(found.length, 'token')}{shares}{groups}"
    )


def cells(
    scene: Scene, classes: Classes, found: Overview, number: int, x: float, y: float, room: float
) -> tuple[float, float]:
    """Draw the grid of pattern `number` within `room`; its right end and its bottom."""
    heads = max(map(len, classes.of))
    width = min(SIDE, (room - NAMES - BAR) / heads)
    height = min(SIDE, max(width, 9.0), TALL / classes.layers)
    left, top = x + NAMES, y + 20
    across, down = heads * width, classes.layers * height
    _numbers(scene, heads, width, lambda k: (left + (k + 0.5) * width, top - 5), "middle", 16)
    _numbers(scene, classes.layers, height, lambda k: (left - 5, top + (k + 0.5) * height + 3.5), "end", 11)
    scene.add(Label(x, top - 5, "head", 10, QUIET))
    letters = [[found.kinds[k].letter for k in line] for line in found.cells[number]]
    kinds = {kind.letter: kind for kind in found.kinds}
    labels = []
    for letter, boxes in merged(letters).items():
        colour = kinds[letter].colour()
        for column, row, wide, high in boxes:
            at, to = left + column * width, top + row * height
            scene.add(Rectangle(at, to, wide * width, high * height, colour))
            if wide * width >= 9 and high * height >= 9:  # in the middle cell, or across lines where cells are small
                right = (wide - 1) // 2 + 0.5 if width >= 10 else wide / 2
                below = (high - 1) // 2 + 0.5 if height >= 10 else high / 2
                middle = at + right * width, to + below * height + 3.6
                labels.append(Label(*middle, letter, 10, on(colour), bold=True, anchor="middle"))
    _lines(scene, [left + k * width for k in range(1, heads)], (top, top + down), width, upright=True)
    _lines(scene, [top + k * height for k in range(1, classes.layers)], (left, left + across), height, upright=False)
    layer = 0
    for shape, same in groupby(shapes(classes)):
        first, layer = layer, layer + sum(1 for _ in same)
        for k in range(shape.group, shape.heads, shape.group) if shape.group > 1 and width >= 3 else ():
            place, ends = left + k * width, (top + first * height, top + layer * height)
            scene.add(Line(((place, ends[0]), (place, ends[1])), PAPER, 2.5 if width >= 6 else 1))
    scene.add(*labels)
    _bars(scene, found.densities(classes, number), left + across + 10, top, height)
    return left + across + BAR, top + down


def _bars(scene: Scene, densities: list[float], x: float, y: float, height: float) -> None:
    """The mean density of every layer's heads; equal neighbours make one bar."""
    room = BAR - 12
    scene.add(Label(x, y - 5, "kept", 10, QUIET), Rectangle(x, y, room, height * len(densities), FIELD))
    start = 0
    for k in range(1, len(densities) + 1):
        if k == len(densities) or densities[k] != densities[start]:
            if densities[start]:
                long = max(1.0, room * densities[start])
                scene.add(Rectangle(x, y + start * height, long, (k - start) * height, "#8b95a3"))
            start = k
    _lines(scene, [y + k * height for k in range(1, len(densities))], (x, x + room), height, upright=False)


def legend(
    scene: Scene, patterns: tuple[Classes, ...], found: Overview, x: float, y: float, room: float, columns: int = 1
) -> float:
    """What the cells of each kind are: letter, keys, density, rule, and where; its bottom."""
    small = len(found.kinds) > THUMBS
    across, step = room / columns, 40.0 if small else ROW
    for n, kind in enumerate(found.kinds):
        left, top = x + n % columns * across, y + n // columns * step
        colour = kind.colour()
        scene.add(
            Rectangle(left, top, 16, 16, colour, 2),
            Label(left + 8, top + 12, kind.letter, 10.5, on(colour), bold=True, anchor="middle"),
        )
        start = left + 26
        if not small:
            scene.add(_thumb(kind, _owner(kind, patterns), start, top))
            start += THUMB + 12
        width = across - (start - left) - 16
        title = f"{kind.parts}: {kind.density} kept"
        scene.add(Label(start, top + 12, cut(title, 12, width, bold=True), 12, INK, bold=True))
        scene.add(Label(start, top + 27, cut(kind.rule, 11, width), 11, QUIET))
        if not small:
            count = f"{kind.count:,} head{'s' * (kind.count > 1)}"
            count = f"{count}: {kind.where}" if kind.where else count
            scene.add(Label(start, top + 41, cut(count, 11, width), 11, QUIET))
    return y + -(-len(found.kinds) // columns) * step


def _owner(kind: Kind, patterns: tuple[Classes, ...]) -> Classes:
    return next(classes for classes in patterns if kind.layout in classes.layouts)


def _thumb(kind: Kind, classes: Classes, x: float, y: float) -> Cells:
    """The first rows of a head of this kind, small."""
    rows = telling_rows([kind.layout], classes.block, least=16, most=44)
    colours = [FIELD, *(part_colour(part.kind, part.whole) for part in parts_of(kind.layout))]
    lines = []
    for i in range(rows):
        kept = row_parts(kind.layout, i, rows, causal=classes.causal, block=classes.block)
        lines.append([colours[part] for part in kept[: i + 1 if classes.causal else rows]])
    return Cells(x, y, THUMB / rows, lines, FIELD)


def _numbers(
    scene: Scene, count: int, size: float, place: Callable[[int], tuple[float, float]], anchor: str, room: float
) -> None:
    """Numbers along an edge, as many as have room."""
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096) if step * size >= room)
    for k in range(0, count, step):
        scene.add(Label(*place(k), str(k), 10, QUIET, anchor=anchor))  # type: ignore[arg-type]


def _lines(scene: Scene, places: list[float], ends: tuple[float, float], size: float, upright: bool) -> None:
    """Thin gaps between cells that are large enough: one line to and fro, which turns on the grid's edges."""
    if size < 4 or not places:
        return
    points = [(place, end) for k, place in enumerate(places) for end in (ends if k % 2 == 0 else ends[::-1])]
    scene.add(Line(tuple(points if upright else [(x, y) for y, x in points]), PAPER, 1 if size >= 8 else 0.5))


def on(colour: str) -> str:
    """The colour of letters on such a ground: dark or light, whichever stands out more (WCAG's contrast).

    >>> on("#e0cf55"), on("#332288")
    ('#1f2733', '#ffffff')
    """
    return max((INK, PAPER), key=lambda ink: _contrast(ink, colour))


def _contrast(first: str, second: str) -> float:
    low, high = sorted(map(_luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    shares = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    light = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]
