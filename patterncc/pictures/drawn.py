"""Panels of text, and how they flow over a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.text import Text

GAP = 3
LEAST = 24  # characters of a panel's titles, however small its drawing


@dataclass(frozen=True)
class Drawn:
    """A panel ready to print: its lines, and how many characters each takes."""

    lines: list[Text]
    width: int


def titled(titles: list[Text], lines: list[Text], width: int) -> Drawn:
    """A panel of a drawing `width` characters wide with titles above it, which are cut to fit."""
    width = max(width, LEAST)
    for text in titles:
        text.truncate(width, overflow="ellipsis")
    return Drawn([*titles, *lines], width)


def flow(drawn: list[Drawn], width: int) -> Iterator[Text]:
    """Panels side by side, as many as fit, then the next line of them."""
    while drawn:
        room = max(1, (width + GAP) // (max(panel.width for panel in drawn) + GAP))
        line, drawn = drawn[:room], drawn[room:]
        for k in range(max(len(panel.lines) for panel in line)):
            text = Text()
            for panel in line:
                part = panel.lines[k].copy() if k < len(panel.lines) else Text()
                part.pad_right(max(0, panel.width - part.cell_len) + GAP)
                text.append_text(part)
            text.rstrip()
            yield text
        yield Text()
