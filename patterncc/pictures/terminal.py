"""Patterns drawn in a terminal: two blocks a character in colour, plain signs where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from patterncc.ir.layout import Classes, Layout
from patterncc.pictures.palette import NIGHT_FIELD, NIGHT_PAPER, count_colour, mix, part_colour
from patterncc.pictures.parts import density, parts_of, row_parts
from patterncc.pictures.text import DROPPED, PARTLY, SIGNS, grid, kept_most, legend, sampled, telling_rows
from patterncc.pictures.view import (
    check_choice,
    check_rows,
    coverage,
    facts,
    few,
    layer_classes,
    panels_of,
    spell,
    swatches,
)

HALF, FULL, GAP = "▀", "█", 3
DIGITS = "123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Drawn:
    """A panel ready to print: its lines, and how many characters each takes."""

    lines: list[Text]
    width: int


def show_terminal(
    classes: Classes,
    *,
    layer: int | None = None,
    head: int | None = None,
    union: bool = False,
    rows: int | None = None,
    console: Console,
) -> None:
    """Print a pattern's classes, one layer's, one head's layout, or how many heads keep each block (`union`)."""
    check_choice(classes, layer, head)
    colour = console.is_terminal and not console.no_color and console.color_system is not None
    colour = colour and (console.encoding or "").lower().startswith("utf")
    across = 1 if head is not None else 3
    shown = check_rows(
        rows or _fitting(telling_rows(classes.layouts, classes.block, least=24), console.width // across)
    )
    console.print(Text(classes.name, "bold").append(f"  {facts(classes)}", "not bold dim"), soft_wrap=True)
    console.print(
        f"first {shown} rows (down) and columns (across): {shown * classes.block} tokens", style="dim", highlight=False
    )
    console.print()
    if union:
        drawn, key = _unions(classes, layer, shown, console.width, colour)
    else:
        drawn, key = _layouts(classes, layer, head, shown, console.width, colour)
    for line in _flow(drawn, console.width):
        console.print(line, no_wrap=True, overflow="crop", soft_wrap=False)
    console.print(key, soft_wrap=True)


def _layouts(
    classes: Classes, layer: int | None, head: int | None, rows: int, width: int, colour: bool
) -> tuple[list[Drawn], Text]:
    panels = panels_of(classes, layer, head)
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
    return drawn, key.append(_scale(step))


def _unions(classes: Classes, layer: int | None, rows: int, width: int, colour: bool) -> tuple[list[Drawn], Text]:
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
            painted = [[count_colour(count, classes.heads, night=True) for count in line] for line in lines]
            drawn.append(_painted(titles, [line + [NIGHT_PAPER] * (rows - len(line)) for line in painted], step))
        else:
            signs = ["".join(_count_sign(count, classes.heads) for count in line) for line in lines]
            gap = " " if 2 * rows // step <= width // len(wanted) else ""
            drawn.append(_signed(titles, sampled(signs, step, min), gap))
    key = Text("heads that keep a block:")
    for count in few(seen):
        sign = FULL if colour else _count_sign(count, classes.heads)
        style = count_colour(count, classes.heads, night=True) if colour else ""
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
    return _titled(titles, lines, width)


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
    return _titled(titles, [Text(gap.join(line)) for line in lines], width)


def _titled(titles: list[Text], lines: list[Text], width: int) -> Drawn:
    width = max(width, 24)
    for text in titles:
        text.truncate(width, overflow="ellipsis")
    return Drawn([*titles, *lines], width)


def _flow(drawn: list[Drawn], width: int) -> Iterable[Text]:
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


def _fitting(rows: int, width: int) -> int:
    """Rows to show when nobody asked for a number: cut to what fits in `width`, if most of them do."""
    room = width - GAP + 1
    return room if room < rows <= 2 * room else rows


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
