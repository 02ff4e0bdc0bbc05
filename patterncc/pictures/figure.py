"""Whole pictures of a pattern: panels, plots and legends, and their places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patterncc.analysis.costs.price import LENGTH
from patterncc.errors import counted
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.pictures.heads import at_a_glance
from patterncc.pictures.overview import overview as kinds_of
from patterncc.pictures.palette import FIELD, INK, PAPER, QUIET, count_colour, part_colour
from patterncc.pictures.parts import density, parts_of, row_parts
from patterncc.pictures.plots import live_plot, weights_plot
from patterncc.pictures.scene import Cells, Label, Rectangle, Scene, cut, text_width, wrap
from patterncc.pictures.text import telling_rows
from patterncc.pictures.view import (
    LayerClass,
    Panel,
    check_choice,
    check_rows,
    coverage,
    facts,
    few,
    layer_classes,
    panels_of,
    spell,
    swatches,
    telling_layer,
)

WIDTH, MARGIN, GUTTER, WIDE = 960, 32, 24, 40
ROOM = WIDTH - 2 * MARGIN
MOST_PANELS, MOST_UNIONS = 32, 6


def figure(
    classes: Classes,
    *,
    layer: int | None = None,
    head: int | None = None,
    union: bool = False,
    rows: int | None = None,
    about: str = "",
    length: int = LENGTH,
    overview: bool = False,
) -> Scene:
    """A scene of one head, of the coverage counts (`union`), of the kinds of heads (`overview`), or of all: kinds where
    there are several, classes, coverage, live keys and weights. Kinds keep what is said of them at `length` tokens."""
    check_choice(classes, layer, head)
    if overview:
        return _overview(classes, length, about)
    panels = panels_of(classes, layer, head)
    most = 192 if len(panels) < 4 else 96
    shown = check_rows(rows or telling_rows([panel.layout for panel in panels], classes.block, least=32, most=most))
    scene = Scene(WIDTH, 0, f"The attention pattern {classes.name}", about or facts(classes))
    y = _header(scene, classes, about, shown)
    if union and head is None:
        y = _unions(scene, classes, layer, shown, y)
    elif len(panels) == 1:
        y = _one(scene, classes, panels[0], shown, y)
    else:
        if layer is None and len((found := kinds_of(classes, length=length)).kinds) > 1:
            y = at_a_glance(scene, classes, found, MARGIN, y, ROOM) + 44
        y = _panels(scene, classes, panels, shown, y)
        y = _summary(scene, classes, layer, shown, y + 40)
    scene.height = round(y + MARGIN - 6)
    return scene


def _overview(classes: Classes, length: int, about: str) -> Scene:
    scene = Scene(WIDTH, 0, f"The attention pattern {classes.name} at a glance", about or facts(classes))
    y = _header(scene, classes, about, None)
    found = kinds_of(classes, length=length)
    scene.height = round(at_a_glance(scene, classes, found, MARGIN, y, ROOM) + MARGIN - 6)
    return scene


def _header(scene: Scene, classes: Classes, about: str, rows: int | None) -> float:
    scene.add(Label(MARGIN, 50, cut(classes.name, 24, ROOM, bold=True), 24, INK, bold=True))
    y = 52.0
    for line in wrap(about, 14, ROOM):
        y += 21
        scene.add(Label(MARGIN, y, line, 14, INK))
    y += 21
    extent = f". {rows} × {counted(rows, 'block')}: query rows down, key columns across" if rows else ""
    scene.add(Label(MARGIN, y, cut(f"{facts(classes)}{extent}", 12, ROOM), 12, QUIET))
    return y + 28


def _panels(scene: Scene, classes: Classes, panels: Sequence[Panel], rows: int, y: float) -> float:
    """Small multiples, and under them the legend."""
    drawn = panels[:MOST_PANELS]
    across = 3 if len(drawn) < 4 else next(n for n in (4, 5, 6, 8) if len(drawn) <= 2 * n or n == 8)
    gutter = WIDE if across == 3 else GUTTER
    side = (ROOM - gutter * (across - 1)) / across
    for k, panel in enumerate(drawn):
        x, top = MARGIN + k % across * (side + gutter), y + k // across * (side + 52)
        share = density(panel.layout, rows, causal=classes.causal, block=classes.block)
        notes = " · ".join(filter(None, (panel.layers, f"{share:.1%} kept")))
        scene.add(
            Label(x, top, cut(panel.heads, 12, side, bold=True), 12, INK, bold=True),
            Label(x, top + 15, cut(notes, 11, side), 11, QUIET),
            Cells(x, top + 23, side / rows, part_cells(panel.layout, classes, rows), FIELD),
        )
    y += -(-len(drawn) // across) * (side + 52) + 2
    x = legend_of(scene, [panel.layout for panel in panels], y)
    if len(panels) > len(drawn):
        scene.add(Label(x, y, f"and {counted(len(panels) - len(drawn), 'more class', 'more classes')}", 12, QUIET))
    return y


def _one(scene: Scene, classes: Classes, panel: Panel, rows: int, y: float) -> float:
    """One large drawing; beside it why blocks are kept, and how the head's memory and work grow."""
    side, left = 460, MARGIN + 460 + 40
    share = density(panel.layout, rows, causal=classes.causal, block=classes.block)
    scene.add(
        Label(MARGIN, y, panel.title, 13, INK, bold=True),
        Cells(MARGIN, y + 14, side / rows, part_cells(panel.layout, classes, rows), FIELD),
        Label(left, y, f"{share:.1%} of token pairs kept, by", 13, INK, bold=True),
    )
    line = y + 26
    for part in parts_of(panel.layout)[:7]:
        rule = cut(part.text, 13, WIDTH - MARGIN - left - 100)
        scene.add(
            Rectangle(left, line - 10, 11, 11, part_colour(part.kind, part.whole), 2),
            Label(left + 20, line, part.kind if part.whole else f"{part.kind} *", 13, INK),
            Label(left + 92, line, rule, 13, QUIET),
        )
        line += 21
    if not all(part.whole for part in parts_of(panel.layout)):
        scene.add(Label(left + 20, line, "* blocks kept in part, exact to the token", 11, QUIET))
        line += 21
    plots, room = (live_plot, weights_plot) if classes.causal else (weights_plot,), y + 14 + side - line - 8
    for k, plot in enumerate(plots):
        height = room / len(plots)
        plot(scene, classes, [(panel.layout,)], rows, left, line + 16 + k * height, WIDTH - MARGIN - left, height - 16)
    return y + 14 + side


def _unions(scene: Scene, classes: Classes, layer: int | None, rows: int, y: float) -> float:
    chosen = [shared for shared in layer_classes(classes) if layer is None or layer in shared.layers]
    drawn = chosen[:MOST_UNIONS]
    across = min(len(drawn), 3)
    side = 520 if across == 1 else (ROOM - GUTTER * (across - 1)) / across
    for k, shared in enumerate(drawn):
        x, top = MARGIN + k % across * (side + GUTTER), y + k // across * (side + 64)
        draw_union(scene, classes, shared, layer, rows, x, top, side)
    y += -(-len(drawn) // across) * (side + 64)
    if len(chosen) > len(drawn):
        scene.add(Label(MARGIN, y, f"and {counted(len(chosen) - len(drawn), 'more kind')} of layer", 12, QUIET))
    return y


def draw_union(
    scene: Scene,
    classes: Classes,
    shared: LayerClass,
    layer: int | None,
    rows: int,
    x: float,
    y: float,
    side: float,
) -> None:
    """One heat map: how many heads keep each block. Its legend lists the counts that occur."""
    counts = coverage(classes, shared.of, rows)
    ends = [i + 1 if classes.causal else rows for i in range(rows)]
    cells = [[count_colour(c, len(shared.of)) for c in line[:end]] for line, end in zip(counts, ends, strict=True)]
    seen = sorted({c for line, end in zip(counts, ends, strict=True) for c in line[:end]})
    where = spell("layer", shared.layers if layer is None else [layer])
    title = "Heads per block" + (f", {where}" if len(shared.layers) < classes.layers else "")
    scene.add(
        Label(x, y, cut(title, 12, side, bold=True), 12, INK, bold=True),
        Cells(x, y + 10, side / rows, cells),
    )
    place = x
    for count in few(seen):
        text = "none" if count == 0 else str(count)
        scene.add(
            Rectangle(place, y + side + 18, 11, 11, count_colour(count, len(shared.of)), 2),
            Label(place + 16, y + side + 28, text, 11, QUIET),
        )
        place += 30 + 7 * len(text)


def _summary(scene: Scene, classes: Classes, layer: int | None, rows: int, y: float) -> float:
    """Coverage of the commonest layers that are not dense, live keys, and row weights, side by side."""
    telling = telling_layer(classes, layer)
    side = (ROOM - 2 * WIDE) / 3
    draw_union(scene, classes, telling, layer, rows, MARGIN, y, side)
    columns = iter((MARGIN + side + WIDE, MARGIN + 2 * (side + WIDE)))
    if classes.causal:
        size = telling.group
        groups = [tuple(classes.layouts[c] for c in telling.of[g : g + size]) for g in range(0, len(telling.of), size)]
        live_plot(scene, classes, groups, rows, next(columns), y, side, side + 10)
    heads = [(classes.layouts[number],) for number in telling.of]
    weights_plot(scene, classes, heads, rows, next(columns), y, side, side + 10)
    return y + side + 32


def part_cells(layout: Layout, classes: Classes, rows: int) -> list[list[str | None]]:
    """The colour of every block of a layout: [row][column], None where causality forbids."""
    colours = [FIELD, *(part_colour(part.kind, part.whole) for part in parts_of(layout))]
    cells: list[list[str | None]] = []
    for i in range(rows):
        numbers = row_parts(layout, i, rows, causal=classes.causal, block=classes.block)
        cells.append([colours[number] for number in numbers[: i + 1 if classes.causal else rows]])
    return cells


def legend_of(scene: Scene, layouts: Iterable[Layout], y: float) -> float:
    """Add a line of swatches to the scene; returns the x after it."""
    x = float(MARGIN)
    for word, colour in swatches(layouts, FIELD, PAPER):
        scene.add(Rectangle(x, y - 10, 12, 12, colour, 2), Label(x + 18, y, word, 12, QUIET))
        x += 42 + text_width(word, 12)
    return x
