"""The shapes of a picture, in points: composed once, painted as SVG or as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Point = tuple[float, float]


@dataclass(frozen=True)
class Cells:
    """A grid of squares: `colours[row][column]`, None where nothing is drawn."""

    x: float
    y: float
    size: float  # of one square
    colours: Sequence[Sequence[str | None]]
    base: str | None = None  # the colour of most squares, painted under all of them; rows then have no None
    gap: float = 0  # of a square, left empty between squares


@dataclass(frozen=True)
class Rectangle:
    """A filled rectangle; (x, y) is its upper left corner, `radius` rounds all four."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    radius: float = 0


@dataclass(frozen=True)
class Line:
    """A line through all points."""

    points: tuple[Point, ...]
    colour: str
    width: float = 1
    dashed: bool = False


@dataclass(frozen=True)
class Area:
    """The filled area within a line that is closed."""

    points: tuple[Point, ...]
    colour: str


@dataclass(frozen=True)
class Label:
    """A line of text; y is its baseline."""

    x: float
    y: float
    text: str
    size: float
    colour: str
    bold: bool = False
    anchor: Literal["start", "middle", "end"] = "start"


Shape = Cells | Rectangle | Line | Area | Label


@dataclass
class Scene:
    """A picture under composition: shapes in the order in which they are painted."""

    width: float
    height: float
    title: str
    about: str
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        self.shapes += shapes


def merged(colours: Sequence[Sequence[str | None]]) -> dict[str, list[tuple[int, int, int, int]]]:
    """The squares of a grid as few rectangles (column, row, width, height) a colour.

    >>> merged([["a", None], ["a", "b"], ["a", "b"]])
    {'a': [(0, 0, 1, 3)], 'b': [(1, 1, 1, 2)]}
    """
    found: dict[str, list[tuple[int, int, int, int]]] = {}
    standing: dict[tuple[int, int, str], int] = {}  # (column, width, colour) of a run -> the row where it began
    for row in range(len(colours) + 1):
        runs = set(_runs(colours[row])) if row < len(colours) else set()
        for run in sorted(standing.keys() - runs):
            column, width, colour = run
            top = standing.pop(run)
            found.setdefault(colour, []).append((column, top, width, row - top))
        standing |= dict.fromkeys(runs - standing.keys(), row)
    return dict(sorted(found.items()))


def _runs(line: Sequence[str | None]) -> list[tuple[int, int, str]]:
    runs, start = [], 0
    for k in range(1, len(line) + 1):
        if k == len(line) or line[k] != line[start]:
            if (colour := line[start]) is not None:
                runs.append((start, k - start, colour))
            start = k
    return runs


def text_width(text: str, size: float, bold: bool = False) -> float:
    """About how wide a sans-serif font sets the text: enough to place and to cut it."""
    narrow = sum(character in " .,:;|!'()[]ijlftIr-·" for character in text)
    wide = sum(character in "mwMW@%—" for character in text)
    return size * (0.56 * len(text) - 0.24 * narrow + 0.3 * wide) * (1.12 if bold else 1)


def cut(text: str, size: float, width: float, bold: bool = False) -> str:
    """The text, or as much of its start as fits, and an ellipsis.

    >>> cut("heads 0-3, 8-11", 12, 60)
    'heads 0-…'
    """
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(text + "…", size, bold) > width:
        text = text[:-1]
    return text.rstrip(" ,;") + "…"


def wrap(text: str, size: float, width: float) -> list[str]:
    """The text in lines of at most `width`, three at most; the last one is cut where it is too long."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > 3:
        lines = [*lines[:2], " ".join(lines[2:])]
    return [cut(line, size, width) for line in lines]
