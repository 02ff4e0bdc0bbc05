"""Patterns drawn in a terminal: two blocks a character in colour, plain signs where there is none."""

from __future__ import annotations

from collections import Counter

from rich.text import Text

from patterncc.errors import counted
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.pictures.drawn import GAP, Drawn, titled
from patterncc.pictures.palette import NIGHT_FIELD, NIGHT_PAPER, count_colour, mix, part_colour
from patterncc.pictures.parts import density, parts_of, row_parts
from patterncc.pictures.text import DROPPED, PARTLY, SIGNS, grid, kept_most, legend, sampled
from patterncc.pictures.view import (
    coverage,
    few,
    layer_classes,
    panels_of,
    spell,
    swatches,
)

HALF, FULL = "▀", "█"
PANELS = 12  # layouts drawn of a pattern that has more; a layer or a head is chosen to see the others
DIGITS = "123456789abcdefghijklmnopqrstuvwxyz"


def drawn_layouts(
    classes: Classes, layer: int | None, head: int | None, rows: int, width: int, colour: bool
) -> tuple[list[Drawn], Text]:
    """Each layout's drawing, and the legend."""
    panels = panels_of(classes, layer, head)
    more = len(panels) - PANELS
    panels = panels[:PANELS] if more > 0 and layer is None else panels
    step = _step(rows, len(panels), width, colour)
    drawn = []
    for panel in panels:
        share = density(panel.layout, rows, causal=classes.causal, block=classes.block)
        notes = ", ".join(filter(None, (f"{share:.1%} kept", panel.layers)))
        titles = [Text(panel.heads, "bold"), Text(notes, "dim")]
        if head is not None:
            titles += _reasons(panel.layout, colour)
        if colour:
            drawn.append(_painted(titles, _cells(panel.layout, rows, classes), step))
        else:
            gap = " " if head is not None and 2 * rows // step <= width else ""
            lines = grid(panel.layout, causal=classes.causal, block=classes.block, rows=rows, gap="")
            drawn.append(_signed(titles, sampled(lines, step, kept_most), gap))
    layouts = [panel.layout for panel in panels]
    key = _colour_legend(layouts) if colour else Text("   ".join(legend(layouts)))
    key.append(_scale(step))
    return drawn, key.append(
        f"\nand {counted(more, 'more layout')}: --layer, --head" if more > 0 and layer is None else ""
    )


def drawn_unions(classes: Classes, layer: int | None, rows: int, width: int, colour: bool) -> tuple[list[Drawn], Text]:
    """For each kind of layer how many of its heads keep each block, and the legend."""
    wanted = [shared for shared in layer_classes(classes) if layer is None or layer in shared.layers]
    step = _step(rows, len(wanted), width, colour)
    drawn, seen = [], set()
    for shared in wanted:
        counts = coverage(classes, shared.of, rows)
        lines = [line[: i + 1] if classes.causal else line for i, line in enumerate(counts)]
        cells = [count for line in lines for count in line]
        seen.update(cells)
        title = spell("layer", shared.layers if layer is None else [layer])
        unseen = f"no head keeps {cells.count(0)} of {len(cells)}" if 0 in cells else "every block is kept"
        titles = [Text(title, "bold"), Text(unseen, "dim")]
        if colour:
            painted = [[count_colour(count, len(shared.of), night=True) for count in line] for line in lines]
            drawn.append(_painted(titles, [line + [NIGHT_PAPER] * (rows - len(line)) for line in painted], step))
        else:
            signs = ["".join(_count_sign(count, len(shared.of)) for count in line) for line in lines]
            gap = " " if 2 * rows // step <= width // len(wanted) else ""
            drawn.append(_signed(titles, sampled(signs, step, min), gap))
    key, most = Text("heads that keep a block:"), max(len(shared.of) for shared in wanted)
    for count in few(seen):
        sign = FULL if colour else _count_sign(count, most)
        style = count_colour(count, most, night=True) if colour else ""
        key.append("  ").append(sign, style).append(f" {count or 'none'}")
    return drawn, key.append(_scale(step))


def _cells(layout: Layout, rows: int, classes: Classes) -> list[list[str]]:
    """The colour of every block."""
    colours = [NIGHT_FIELD, *(part_colour(part.kind, part.whole, NIGHT_FIELD) for part in parts_of(layout))]
    cells = []
    for i in range(rows):
        numbers = row_parts(layout, i, rows, causal=classes.causal, block=classes.block)
        end = i + 1 if classes.causal else rows
        cells.append([colours[number] for number in numbers[:end]] + [NIGHT_PAPER] * (rows - end))
    return cells


def _painted(titles: list[Text], cells: list[list[str]], step: int) -> Drawn:
    """Half-block characters: the foreground paints the upper block, the background the lower."""
    cells = _shrunk(cells, step)
    width = len(cells[0])
    cells += [[NIGHT_PAPER] * width] if len(cells) % 2 else []
    lines = []
    for upper, lower in zip(cells[::2], cells[1::2], strict=True):
        line, start = Text(), 0
        for k in range(1, width + 1):
            if k == width or (upper[k], lower[k]) != (upper[start], lower[start]):
                line.append(HALF * (k - start), f"{upper[start]} on {lower[start]}")
                start = k
        lines.append(line)
    return titled(titles, lines, width)


def _shrunk(cells: list[list[str]], step: int) -> list[list[str]]:
    """One cell for every step × step, of their mean colour."""
    if step == 1:
        return cells
    small = []
    for top in range(0, len(cells), step):
        line = []
        for left in range(0, len(cells), step):
            tally = Counter(colour for row in cells[top : top + step] for colour in row[left : left + step])
            mean, weight = "", 0
            for colour, count in sorted(tally.items()):
                weight += count
                mean = mix(mean or colour, colour, count / weight)
            line.append(mean)
        small.append(line)
    return small


def _reasons(layout: Layout, colour: bool) -> list[Text]:
    """One line a part: its sign, its key and its rule."""
    lines = []
    for part in parts_of(layout):
        sign = SIGNS[part.kind] if part.whole else PARTLY
        mark = Text(FULL * 2, part_colour(part.kind, part.whole, NIGHT_FIELD)) if colour else Text(sign)
        lines.append(mark.append(f" {part.kind:<8}{part.text}", "default"))
    return lines or [Text("keeps nothing")]


def _signed(titles: list[Text], lines: list[str], gap: str) -> Drawn:
    width = (len(gap) + 1) * max(map(len, lines)) - len(gap)
    return titled(titles, [Text(gap.join(line)) for line in lines], width)


def _step(rows: int, panels: int, width: int, colour: bool) -> int:
    """How many blocks a character stands for across, so that a panel (of several, about three) fits the width."""
    across = 1 if panels == 1 else 2 if width < 72 else 3
    return max(1, -(-rows // max(8, (width - GAP * (across - 1)) // across)))


def _scale(step: int) -> str:
    return "" if step == 1 else f"   (a cell stands for {step} x {step} blocks)"


def _colour_legend(layouts: list[Layout]) -> Text:
    text = Text()
    for word, colour in swatches(layouts, NIGHT_FIELD):
        text.append(FULL * 2, colour).append(f" {word}   ")
    return text


def _count_sign(count: int, heads: int) -> str:
    """One sign for a number of heads: 1-9 and a-z where that is enough, else ninths of all heads."""
    if count == 0:
        return DROPPED
    return DIGITS[count - 1] if heads <= len(DIGITS) else DIGITS[-(-count * 9 // heads) - 1]
