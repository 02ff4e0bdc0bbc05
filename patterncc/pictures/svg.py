"""A scene as SVG, written by hand: no dependency, and the same bytes for the same scene."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from patterncc.pictures.palette import PAPER, RULE
from patterncc.pictures.scene import Area, Box, Cells, Label, Line, Scene, Shape, merged

FONT = "system-ui,-apple-system,'Segoe UI','Helvetica Neue',Arial,sans-serif"


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
    kept = (c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn") else "\N{REPLACEMENT CHARACTER}" for c in text)
    marks = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
    return "".join(marks.get(c, c) for c in kept)


def _lines(shape: Shape) -> Iterator[str]:
    match shape:
        case Cells():
            yield from _cells(shape)
        case Box(x, y, width, height, colour, radius):
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
    """One path a colour, in units of a square: a rectangle is `M column row h width v height h -width z`."""
    place = f"translate({number(cells.x)} {number(cells.y)}) scale({cells.size:.4g})"
    sharp = "" if cells.gap else ' shape-rendering="crispEdges"'
    yield f'<g transform="{place}"{sharp}>'
    if cells.gap:
        side, edge = 1 - cells.gap, cells.gap / 2
        for i, line in enumerate(cells.colours):
            for j, colour in enumerate(line):
                if colour:
                    where = f'x="{number(j + edge)}" y="{number(i + edge)}"'
                    yield f'<rect {where} width="{number(side)}" height="{number(side)}" rx=".15" fill="{colour}"/>'
    else:
        for colour, boxes in merged(cells.colours).items():
            path = "".join(f"M{x} {y}h{width}v{height}h-{width}z" for x, y, width, height in boxes)
            yield f'<path fill="{colour}" d="{path}"/>'
    yield "</g>"


def _path(points: tuple[tuple[float, float], ...]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
