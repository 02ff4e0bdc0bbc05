"""A scene as SVG, written by hand: no dependency, and the same bytes for the same scene."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from patterncc.pictures.palette import PAPER, RULE
from patterncc.pictures.scene import Area, Cells, Label, Line, Rectangle, Scene, Shape, merged

FONT = "system-ui,-apple-system,'Segoe UI','Helvetica Neue',Arial,sans-serif"
ROUND = 0.13  # corner radius of squares that stand apart, in squares


def svg(scene: Scene) -> str:
    """The file's text: one card on any background, with a title and a description for screen readers."""
    width, height = number(scene.width), number(scene.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-labelledby="title about" font-family="{FONT}">',
        f'<title id="title">{escape(scene.title)}</title>',
        f'<desc id="about">{escape(scene.about)}</desc>',
        f'<rect x=".5" y=".5" width="{number(scene.width - 1)}" height="{number(scene.height - 1)}" rx="10"'
        f' fill="{PAPER}" stroke="{RULE}"/>',
        *(line for shape in scene.shapes for line in _lines(shape)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def number(x: float) -> str:
    """A coordinate with at most two decimals.

    >>> number(3.0), number(0.504), number(-0.001)
    ('3', '.5', '0')
    """
    text = f"{x:.2f}".rstrip("0").rstrip(".")
    text = text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
    return "0" if text in ("-0", "-", "") else text


def escape(text: str) -> str:
    """Text that cannot leave its element or attribute, nor hold what XML forbids or what turns its direction.

    >>> escape("a<b>&\\x00\\"")
    'a&lt;b&gt;&amp;\\ufffd&quot;'
    """
    kept = (c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn") else "\ufffd" for c in text)
    marks = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
    return "".join(marks.get(c, c) for c in kept)


def _lines(shape: Shape) -> Iterator[str]:
    match shape:
        case Cells():
            yield from _cells(shape)
        case Rectangle(x, y, width, height, colour, radius):
            corner = f' rx="{number(radius)}"' if radius else ""
            size = f'width="{number(width)}" height="{number(height)}"'
            yield f'<rect x="{number(x)}" y="{number(y)}" {size}{corner} fill="{colour}"/>'
        case Line(points, colour, width, dashed):
            dash = ' stroke-dasharray="4 3"' if dashed else ""
            yield (
                f'<path d="{_path(points)}" fill="none" stroke="{colour}" stroke-width="{number(width)}"'
                f' stroke-linejoin="round" stroke-linecap="round"{dash}/>'
            )
        case Area(points, colour):
            yield f'<path d="{_path(points)}z" fill="{colour}"/>'
        case Label(x, y, text, size, colour, bold, anchor):
            weight = ' font-weight="600"' if bold else ""
            place = f' text-anchor="{anchor}"' if anchor != "start" else ""
            where = f'x="{number(x)}" y="{number(y)}" font-size="{number(size)}"'
            yield f'<text {where} fill="{colour}"{weight}{place}>{escape(text)}</text>'


def _cells(cells: Cells) -> Iterator[str]:
    """Squares in units of a square: the base under all of them, then a path a colour."""
    place = f"translate({number(cells.x)} {number(cells.y)}) scale({cells.size:.4g})"
    if cells.gap:
        yield f'<g transform="{place}" stroke-width="{2 * ROUND:.4g}" stroke-linejoin="round">'
        yield from _rounded(cells)
    else:
        yield f'<g transform="{place}" shape-rendering="crispEdges" stroke-width="1">'
        colours = cells.colours
        if cells.base:
            edge = "".join(f"H{len(line)}v1" for line in colours)
            yield f'<path fill="{cells.base}" d="M0 0{edge}H0z"/>'
            colours = [[None if colour == cells.base else colour for colour in line] for line in colours]
        yield from _paths(colours)
    yield "</g>"


def _rounded(cells: Cells) -> Iterator[str]:
    """A path a colour for squares apart: each is a smaller one with a thick, round outline."""
    edge = cells.gap / 2 + ROUND
    side = number(1 - 2 * edge)
    places: dict[str, list[tuple[int, int]]] = {}
    for y, line in enumerate(cells.colours):
        for x, colour in enumerate(line):
            if colour:
                places.setdefault(colour, []).append((x, y))
    for colour, squares in sorted(places.items()):
        (x, y), path = squares[0], f"M{number(squares[0][0] + edge)} {number(squares[0][1] + edge)}"
        for right, down in squares:
            path += f"m{right - x} {down - y}h{side}v{side}h-{side}z"
            x, y = right, down
        yield f'<path fill="{colour}" stroke="{colour}" d="{path}"/>'


def _paths(colours: Sequence[Sequence[str | None]]) -> Iterator[str]:
    """A path a colour: runs of several equal rows as filled boxes, single runs as strokes through their middle."""
    for colour, boxes in merged(colours).items():
        if fills := "".join(f"M{x} {y}h{w}v{h}h-{w}z" for x, y, w, h in boxes if h > 1):
            yield f'<path fill="{colour}" d="{fills}"/>'
        singles, pen = "", (0, 0)
        for x, y, w, _ in sorted((box for box in boxes if box[3] == 1), key=lambda box: (box[1], box[0])):
            singles += f"m{x - pen[0]} {y - pen[1]}h{w}" if singles else f"M{x} {y}.5h{w}"
            pen = (x + w, y)
        if singles:
            yield f'<path stroke="{colour}" fill="none" d="{singles}"/>'


def _path(points: tuple[tuple[float, float], ...]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
