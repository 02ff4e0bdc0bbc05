"""The two small plots: keys that must be held, and the weight of rows, as the context grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from patterncc.errors import counted
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.pictures.palette import FIELD, INK, PAPER, PARTS, QUIET, mix
from patterncc.pictures.scene import Area, Label, Line, Scene
from patterncc.pictures.view import live_tokens, row_weights

Groups = Sequence[tuple[Layout, ...]]  # one entry a KV head or a head: the layouts it serves


def live_plot(
    scene: Scene, classes: Classes, groups: Groups, rows: int, x: float, y: float, width: float, height: float
) -> None:
    """Key tokens that a KV head must hold after each row, mean over KV heads, against all keys so far."""
    curves = Counter(groups)
    lines = {group: live_tokens(dict.fromkeys(group), rows, classes.block) for group in curves}
    dense = [(i + 1) * classes.block for i in range(rows)]
    plot(scene, "Keys held per KV head", "token", lines, curves, dense, (x, y, width, height))


def weights_plot(
    scene: Scene, classes: Classes, groups: Groups, rows: int, x: float, y: float, width: float, height: float
) -> None:
    """Key blocks that each row reads, every head's line and their mean, against a dense row."""
    curves = Counter(groups)
    lines = {g: row_weights(g[0], rows, causal=classes.causal, block=classes.block) for g in curves}
    dense = [i + 1 if classes.causal else rows for i in range(rows)]
    plot(scene, "Key blocks read per row", "block", lines, curves, dense, (x, y, width, height))


def plot(
    scene: Scene,
    title: str,
    unit: str,
    lines: dict[tuple[Layout, ...], list[int]],
    weights: Counter[tuple[Layout, ...]],
    dense: list[int],
    place: tuple[float, float, float, float],
) -> None:
    """Every distinct line thin, their weighted mean bold over a tinted area, the dense one dashed."""
    x, y, width, height = place
    left, top, right, bottom = x, y + 14, x + width - 34, y + height - 18
    most, rows = dense[-1], len(dense)

    def points(values: Sequence[float]) -> tuple[tuple[float, float], ...]:
        across, down = (right - left) / max(rows - 1, 1), (bottom - top) / most
        bends = [k for k in range(rows) if k in (0, rows - 1) or values[k - 1] + values[k + 1] != 2 * values[k]]
        return tuple((left + k * across, bottom - values[k] * down) for k in bends)

    total = sum(weights.values())
    mean = [sum(line[i] * weights[key] for key, line in lines.items()) / total for i in range(rows)]
    scene.add(Label(x, y, title, 12, INK, bold=True))
    scene.add(Area(((left, bottom), *points(mean), (right, bottom)), mix(PARTS["local"], PAPER, 0.85)))
    scene.add(*(Line(points(line), mix(PARTS["local"], PAPER, 0.55), 0.8) for line in lines.values() if len(lines) > 1))
    scene.add(Line(points(dense), QUIET, 1, dashed=True), Line(points(mean), PARTS["local"], 2))
    scene.add(Line(((left, bottom), (right, bottom)), FIELD, 1))
    share = mean[-1] / most
    low = bottom - share * (bottom - top)
    scene.add(
        Label(
            right + 5,
            min(max(low, top + 14 if share < 0.97 else top) + 4, bottom + 2),
            f"{share:.0%}",
            11,
            INK,
            bold=True,
        )
    )
    if share < 0.97:
        scene.add(Label(right + 5, top + 4, "dense", 11, QUIET))
    if right - left > 220:
        scene.add(Label(left, bottom + 15, "row 0", 11, QUIET))
    scene.add(
        Label(right, bottom + 15, f"row {rows - 1}: {mean[-1]:,.0f} of {counted(most, unit)}", 11, QUIET, anchor="end"),
    )
