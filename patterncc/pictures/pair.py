"""Two patterns side by side: the kinds of their heads, how many heads keep each block, what they cost."""

from __future__ import annotations

from patterncc.analysis.costs.price import LENGTH, amount, price
from patterncc.errors import counted
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.pictures.figure import GUTTER, MARGIN, ROOM, WIDTH, draw_union, legend_of, part_cells
from patterncc.pictures.heads import cells, legend, note
from patterncc.pictures.overview import Overview, overview
from patterncc.pictures.palette import FIELD, INK, QUIET
from patterncc.pictures.plots import live_plot
from patterncc.pictures.scene import Cells, Label, Scene, cut
from patterncc.pictures.text import telling_rows
from patterncc.pictures.view import check_choice, check_rows, facts, panels_of, telling_layer

HALF = (ROOM - 2 * GUTTER) / 2
PANELS = 6  # layouts of a layer
Pair = tuple[Classes, Classes]


def pair_figure(
    first: Classes,
    second: Classes,
    *,
    layer: int | None = None,
    head: int | None = None,
    union: bool = False,
    tokens: int | None = None,
    length: int = LENGTH,
    only_kinds: bool = False,
) -> Scene:
    """A scene of both patterns over the same tokens: kinds, unions and live keys, or what is chosen of each."""
    pair = first, second
    for classes in pair:
        check_choice(classes, layer, head)
    names = f"{first.name} beside {second.name}"
    scene = Scene(WIDTH, 0, names, "; ".join(f"{classes.name}: {facts(classes)}" for classes in pair))
    found = overview(*pair, length=length)
    for classes, x in zip(pair, _lefts(), strict=True):
        cost = price(classes, length)
        said = f"{amount(cost.kv_bytes, 'B', 1024)} of KV cache, {cost.density:.1%} kept at {counted(length, 'token')}"
        scene.add(
            Label(x, 50, cut(classes.name, 24, HALF, bold=True), 24, INK, bold=True),
            Label(x, 72, cut(facts(classes), 12, HALF), 12, QUIET),
            Label(x, 89, cut(said, 12, HALF), 12, INK),
        )
    y = 124.0
    chosen = head is not None or layer is not None or union
    if only_kinds or not chosen:
        y = _kinds(scene, pair, found, y) + 12
    if not only_kinds:
        rows = same_tokens(pair, tokens, 192)
        if layer is not None or head is not None:
            y = _layouts(scene, pair, layer, head, rows, y)
        if head is None:
            y = _unions(scene, pair, layer, rows, y)
    scene.height = round(y + MARGIN - 6)
    return scene


def same_tokens(pair: tuple[Classes, ...], tokens: int | None = None, most: int = 96) -> list[int]:
    """How many rows to draw of each pattern so that all show the same tokens."""
    if tokens is None:
        tokens = max(telling_rows(c.layouts, c.block, least=24, most=most) * c.block for c in pair)
        tokens = min(tokens, most * min(c.block for c in pair))
    return [check_rows(-(-tokens // classes.block)) for classes in pair]


def _lefts() -> tuple[float, float]:
    return MARGIN, MARGIN + HALF + 2 * GUTTER


def _kinds(scene: Scene, pair: Pair, found: Overview, y: float) -> float:
    scene.add(
        Label(MARGIN, y, "Every head (across) of every layer (down)", 12, INK, bold=True),
        Label(MARGIN, y + 16, note(pair, found), 11, QUIET),
    )
    drawn = enumerate(zip(pair, _lefts(), strict=True))
    bottom = max(cells(scene, classes, found, n, x, y + 24, HALF)[1] for n, (classes, x) in drawn)
    return legend(scene, pair, found, MARGIN, bottom + 28, 2 * (HALF + 2 * GUTTER), columns=2) + 16


def _layouts(scene: Scene, pair: Pair, layer: int | None, head: int | None, rows: list[int], y: float) -> float:
    """The layouts of a layer, or of a head, of each pattern."""
    drawn: list[Layout] = []
    bottom = y
    for classes, count, x in zip(pair, rows, _lefts(), strict=True):
        panels = panels_of(classes, layer, head)
        across = 1 if len(panels) == 1 else 3
        side = (HALF - GUTTER * (across - 1)) / across
        for k, panel in enumerate(panels[:PANELS]):
            left, top = x + k % across * (side + GUTTER), y + k // across * (side + 36)
            scene.add(
                Label(left, top, cut(panel.title, 12, side, bold=True), 12, INK, bold=True),
                Cells(left, top + 10, side / count, part_cells(panel.layout, classes, count), FIELD),
            )
            drawn.append(panel.layout)
            bottom = max(bottom, top + side + 30)
        if len(panels) > PANELS:
            scene.add(Label(x, bottom - 4, f"and {counted(len(panels) - PANELS, 'more layout')}", 12, QUIET))
    legend_of(scene, drawn, bottom + 22)
    return bottom + 62


def _unions(scene: Scene, pair: Pair, layer: int | None, rows: list[int], y: float) -> float:
    side = HALF * 0.46
    for classes, count, x in zip(pair, rows, _lefts(), strict=True):
        shared = telling_layer(classes, layer)
        draw_union(scene, classes, shared, layer, count, x, y, side)
        if classes.causal:
            size = shared.group
            of = [tuple(classes.layouts[c] for c in shared.of[g : g + size]) for g in range(0, len(shared.of), size)]
            live_plot(scene, classes, of, count, x + side + GUTTER, y, HALF - side - GUTTER, side + 10)
    scene.add(Label(MARGIN, y + side + 52, f"{rows[0] * pair[0].block:,} tokens of each are drawn", 11, QUIET))
    return y + side + 56
