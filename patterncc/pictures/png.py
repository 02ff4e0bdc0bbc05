"""A scene as PNG: painted with numpy, written with zlib."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from patterncc.pictures.palette import PAPER
from patterncc.pictures.scene import Area, Cells, Label, Line, Point, Rectangle, Scene, Shape
from patterncc.pictures.strokes import CAP_HEIGHT, strokes, width

Image = NDArray[np.float32]  # [height, width, 3], 0-255
SCALE = 2  # pixels a point


def png(scene: Scene) -> bytes:
    """The file's bytes: 8-bit RGB, two pixels a point."""
    image = np.empty((round(scene.height * SCALE), round(scene.width * SCALE), 3), np.float32)
    image[:] = rgb(PAPER)
    for shape in scene.shapes:
        _paint(image, shape)
    return encode(np.clip(np.rint(image), 0, 255).astype(np.uint8))


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of an array [height, width, 3] (ISO/IEC 15948): every row as its difference from the one above (filter 2)."""
    height, across, _ = pixels.shape
    above = np.pad(pixels, ((1, 0), (0, 0), (0, 0)))[:-1]
    rows = np.concatenate([np.full((height, 1), 2, np.uint8), (pixels - above).reshape(height, -1)], axis=1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", across, height, 8, 2, 0, 0, 0)),
        (b"pHYs", struct.pack(">IIB", *(round(SCALE * 72 / 0.0254),) * 2, 1)),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    body = (
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def rgb(colour: str) -> tuple[int, int, int]:
    """The parts of `#rrggbb`."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _paint(image: Image, shape: Shape) -> None:
    match shape:
        case Cells():
            _cells(image, shape)
        case Rectangle(x, y, across, height, colour, radius):
            _box(image, x * SCALE, y * SCALE, across * SCALE, height * SCALE, radius * SCALE, colour)
        case Line(points, colour, thick, dashed):
            scaled = [(x * SCALE, y * SCALE) for x, y in points]
            for piece in _dashes(scaled) if dashed else [scaled]:
                _stroke(image, piece, thick * SCALE, colour)
        case Area(points, colour):
            _area(image, [(x * SCALE, y * SCALE) for x, y in points], colour)
        case Label():
            _label(image, shape)


def _blend(image: Image, top: int, left: int, cover: NDArray[np.float64], colour: str) -> None:
    """Lay a colour over the image, `cover` (0-1) of it at each pixel; what lies outside is dropped."""
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + cover.shape[0], image.shape[0]), min(left + cover.shape[1], image.shape[1])
    if y0 < y1 and x0 < x1:
        share = cover[y0 - top : y1 - top, x0 - left : x1 - left, None]
        image[y0:y1, x0:x1] += (np.array(rgb(colour)) - image[y0:y1, x0:x1]) * share


def _cells(image: Image, cells: Cells) -> None:
    if cells.gap:
        side = cells.size * (1 - cells.gap)
        for i, line in enumerate(cells.colours):
            for j, colour in enumerate(line):
                if colour:
                    x, y = cells.x + (j + cells.gap / 2) * cells.size, cells.y + (i + cells.gap / 2) * cells.size
                    _box(image, x * SCALE, y * SCALE, side * SCALE, side * SCALE, 0.13 * cells.size * SCALE, colour)
        return
    columns = max(map(len, cells.colours))
    numbers = {colour: n for n, colour in enumerate(dict.fromkeys(c for line in cells.colours for c in line if c), 1)}
    values = np.array(
        [(0, 0, 0, 0), *((*rgb(colour), 1) for colour in numbers)], np.float32
    )  # [colours, RGB and share]
    lines = [[numbers[c] if c else 0 for c in line] + [0] * (columns - len(line)) for line in cells.colours]
    grid = values[np.array(lines)]
    top, left = round(cells.y * SCALE), round(cells.x * SCALE)
    for axis in (0, 1):  # each pixel is the mean of the squares it spans, or the one it lies in
        pixels = round(grid.shape[axis] * cells.size * SCALE)
        edges = np.minimum(np.arange(pixels) * grid.shape[axis] // max(pixels, 1), grid.shape[axis] - 1)
        if pixels >= grid.shape[axis]:
            grid = np.take(grid, edges, axis=axis)
        else:
            counts = np.diff(np.append(edges, grid.shape[axis]))
            sums = np.add.reduceat(grid, edges, axis=axis)
            grid = sums / (counts[:, None, None] if axis == 0 else counts[None, :, None])
    height, across = grid.shape[:2]
    under = image[top : top + height, left : left + across]
    under *= 1 - grid[: under.shape[0], : under.shape[1], 3:]
    under += grid[: under.shape[0], : under.shape[1], :3]


def _box(image: Image, x: float, y: float, across: float, height: float, radius: float, colour: str) -> None:
    top, left = int(y) - 1, int(x) - 1
    py, px = np.mgrid[top : int(y + height) + 2, left : int(x + across) + 2] + 0.5
    dx = np.abs(px - (x + across / 2)) - (across / 2 - radius)
    dy = np.abs(py - (y + height / 2)) - (height / 2 - radius)
    distance = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - radius
    _blend(image, top, left, np.clip(0.5 - distance, 0, 1), colour)


def _stroke(image: Image, points: Sequence[Point], thick: float, colour: str) -> None:
    top, left, cover = _covered((tuple(points),), thick)
    _blend(image, top, left, cover, colour)


def _covered(lines: Sequence[Sequence[Point]], thick: float) -> tuple[int, int, NDArray[np.float64]]:
    """Polylines with round ends and joints, as cover: a pixel's is its distance to the nearest segment, softened."""
    reach = thick / 2 + 1
    every = np.array([point for line in lines for point in line], dtype=np.float64)
    left, top = (int(v) for v in np.floor(every.min(axis=0) - reach))
    right, bottom = (int(v) for v in np.ceil(every.max(axis=0) + reach))
    cover = np.zeros((bottom - top, right - left))
    for line in lines:
        for (ax, ay), (bx, by) in pairwise(line if len(line) > 1 else (*line, *line)):
            x0, x1 = int(min(ax, bx) - reach) - left, int(max(ax, bx) + reach) + 2 - left
            y0, y1 = int(min(ay, by) - reach) - top, int(max(ay, by) + reach) + 2 - top
            part = cover[max(y0, 0) : y1, max(x0, 0) : x1]
            px = np.arange(part.shape[1]) + (max(x0, 0) + left + 0.5 - ax)
            py = np.arange(part.shape[0])[:, None] + (max(y0, 0) + top + 0.5 - ay)
            dx, dy = bx - ax, by - ay
            along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
            distance = np.hypot(px - along * dx, py - along * dy)
            np.maximum(part, np.clip(thick / 2 + 0.5 - distance, 0, min(thick, 1)), out=part)
    return top, left, cover


def _dashes(points: Sequence[Point], drawn: float = 8, left_out: float = 6) -> Iterator[list[Point]]:
    """The drawn pieces of a dashed line."""
    array = np.array(points)
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(array, axis=0).T))])
    for start in np.arange(0, along[-1], drawn + left_out):
        stops = [start, *along[(along > start) & (along < start + drawn)], min(start + drawn, along[-1])]
        yield [(float(np.interp(s, along, array[:, 0])), float(np.interp(s, along, array[:, 1]))) for s in stops]


def _area(image: Image, points: Sequence[Point], colour: str, fine: int = 4) -> None:
    """A filled polygon (even-odd), `fine` × `fine` samples a pixel."""
    array = np.array(points)
    left, top = (int(v) for v in np.floor(array.min(axis=0)))
    right, bottom = (int(v) for v in np.ceil(array.max(axis=0)))
    xs = left + (np.arange((right - left) * fine) + 0.5) / fine
    inside = np.zeros(((bottom - top) * fine, len(xs)), dtype=bool)
    ends = np.roll(array, -1, axis=0)
    for k in range(len(inside)):
        y = top + (k + 0.5) / fine
        crossing = (array[:, 1] <= y) != (ends[:, 1] <= y)
        a, b = array[crossing], ends[crossing]
        at = np.sort(a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1]))
        inside[k] = np.searchsorted(at, xs) % 2 == 1
    cover = inside.reshape(bottom - top, fine, right - left, fine).mean(axis=(1, 3))
    _blend(image, top, left, cover, colour)


def _label(image: Image, label: Label) -> None:
    unit = label.size * 0.72 / CAP_HEIGHT * SCALE
    thick = label.size * SCALE * (0.125 if label.bold else 0.085)
    x = label.x * SCALE - {"start": 0, "middle": 0.5, "end": 1}[label.anchor] * width(label.text) * unit
    y = round(label.y * SCALE)
    for character in label.text:
        place = round(x * 4) / 4
        for top, left, cover in _glyph(character, unit, thick, place % 1):
            _blend(image, y + top, int(place // 1) + left, cover, label.colour)
        x += strokes(character)[1] * unit


@lru_cache(maxsize=4096)
def _glyph(character: str, unit: float, thick: float, x: float) -> list[tuple[int, int, NDArray[np.float64]]]:
    """A character's cover with the pen at (x, 0); its dots are a little larger than its lines are wide."""
    lines = [[(x + px * unit, (py - CAP_HEIGHT) * unit) for px, py in stroke] for stroke in strokes(character)[0]]
    drawn = [line for line in lines if len(line) > 1]
    covers = [_covered(drawn, thick)] if drawn else []
    return covers + [_covered([line], thick * 1.35) for line in lines if len(line) == 1]
