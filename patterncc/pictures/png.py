"""A scene as PNG, painted by Pillow, which is the optional extra `png`: its wheel brings a font, so that text is drawn
on machines that have none."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from math import hypot
from typing import TYPE_CHECKING, Any

from patterncc.errors import UsageError
from patterncc.pictures.palette import PAPER
from patterncc.pictures.scene import Area, Cells, Label, Line, Point, Rectangle, Scene, Shape

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

SCALE, FINE = 2, 2  # pixels a point; samples a pixel, each way
EACH = SCALE * FINE  # samples a point
DASH, LEFT_OUT = 4.0, 3.0  # points of a dashed line
WRITTEN = str.maketrans({"×": "x", "≤": "<=", "≥": ">=", "→": "->", "–": "-", "—": "-"})  # what the font lacks


def png(scene: Scene) -> bytes:
    """The file's bytes: 8-bit RGB, two pixels a point; UsageError without Pillow."""
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise UsageError(
            "a .png picture needs Pillow, which is not installed",
            "pip install 'patterncc[png]'; .svg and .html need nothing more",
        ) from None
    size = round(scene.width * SCALE) * FINE, round(scene.height * SCALE) * FINE
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    for shape in scene.shapes:
        _paint(image, draw, shape)
    file = io.BytesIO()
    image.reduce(FINE).save(file, "PNG", dpi=(72 * SCALE, 72 * SCALE))
    return file.getvalue()


def rgb(colour: str) -> tuple[int, int, int]:
    """The parts of `#rrggbb`."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _paint(image: Image, draw: ImageDraw, shape: Shape) -> None:
    match shape:
        case Cells():
            _cells(image, draw, shape)
        case Rectangle(x, y, width, height, colour, radius):
            _box(draw, x, y, width, height, radius, colour)
        case Line(points, colour, thick, dashed):
            for piece in _dashes(points) if dashed else [points]:
                draw.line(_scaled(piece), colour, max(1, round(thick * EACH)), "curve")
        case Area(points, colour):
            draw.polygon(_scaled(points), colour)
        case Label():
            _label(draw, shape)


def _box(draw: ImageDraw, x: float, y: float, width: float, height: float, radius: float, colour: str) -> None:
    """A rectangle, both of whose ends Pillow paints."""
    left, top, right, bottom = (round(v * EACH) for v in (x, y, x + width, y + height))
    if right > left and bottom > top:
        draw.rounded_rectangle((left, top, right - 1, bottom - 1), radius * EACH, colour)


def _cells(image: Image, draw: ImageDraw, cells: Cells) -> None:
    """Squares: one by one where there are gaps between them, else as an image of a pixel a square, made larger, or
    smaller by means."""
    from PIL import Image

    rows, columns = len(cells.colours), max(map(len, cells.colours))
    if cells.gap:
        side = cells.size * (1 - cells.gap)
        for i, line in enumerate(cells.colours):
            for j, colour in enumerate(line):
                if colour:
                    x, y = cells.x + (j + cells.gap / 2) * cells.size, cells.y + (i + cells.gap / 2) * cells.size
                    _box(draw, x, y, side, side, 0.13 * cells.size, colour)
        return
    known: dict[str | None, tuple[int, ...]] = {c: (*rgb(c), 255) for line in cells.colours for c in line if c}
    known[None] = (*rgb(PAPER), 0)
    small = Image.new("RGBA", (columns, rows))
    small.putdata([known[c] for line in cells.colours for c in (*line, *[None] * (columns - len(line)))])
    size = round(columns * cells.size * SCALE) * FINE, round(rows * cells.size * SCALE) * FINE
    if min(size) > 0:
        large = small.resize(size, Image.Resampling.BOX if size[0] < columns else Image.Resampling.NEAREST)
        image.paste(large, (round(cells.x * SCALE) * FINE, round(cells.y * SCALE) * FINE), large)


def _dashes(points: Sequence[Point]) -> Iterator[list[Point]]:
    """The drawn pieces of a dashed line, each with the corners in it."""
    piece, left, is_drawn = [points[0]], DASH, True
    for a, b in pairwise(points):
        length, at = hypot(b[0] - a[0], b[1] - a[1]), 0.0
        while at + left < length:
            at += left
            stop = a[0] + (b[0] - a[0]) * at / length, a[1] + (b[1] - a[1]) * at / length
            if is_drawn:
                yield [*piece, stop]
            piece, is_drawn = [stop], not is_drawn
            left = DASH if is_drawn else LEFT_OUT
        left -= length - at
        piece.append(b)
    if is_drawn and len(piece) > 1:
        yield piece


def _scaled(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(x * EACH, y * EACH) for x, y in points]


def _label(draw: ImageDraw, label: Label) -> None:
    """Text on its baseline. Pillow's font has one weight: bold text has an outline of its own colour."""
    text = label.text.translate(WRITTEN)
    where: dict[str, Any] = {"anchor": {"start": "ls", "middle": "ms", "end": "rs"}[label.anchor]}
    outline = round(label.size * EACH / 40) if label.bold else 0
    place = label.x * EACH, label.y * EACH
    draw.text(place, text, label.colour, _font(label.size * EACH), stroke_width=outline, **where)


@lru_cache(maxsize=64)
def _font(size: float) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)  # type: ignore[return-value]  # of a size it is the font that the wheel brings
