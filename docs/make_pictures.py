"""Make docs/gallery.md and docs/pictures: a picture of every shipped pattern, and the README's. No arguments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from patterncc.ir.classes import Classes
from patterncc.language import Pattern, load
from patterncc.passes import lower
from patterncc.pictures.figure import figure
from patterncc.pictures.palette import FIELD, HEADS, INK, QUIET
from patterncc.pictures.parts import parts_of, row_parts
from patterncc.pictures.scene import Cells, Label, Line, Scene
from patterncc.pictures.svg import svg

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"
NEAR = "#56657a"  # the window, the same for every head
ROWS = 16
INTRODUCTION = """\
Every shipped pattern as `patterncc show NAME -o NAME.svg` draws it. Above, the layouts of its heads, one for each class
of equal ones; below, how many heads of a layer keep each block (salmon: none), the keys that a KV head must hold as the
context grows, and the key blocks that each row reads, both against dense attention. `patterncc show NAME -o NAME.html`
makes a page in which you can point at a block and read why it is kept."""


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in files():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8", newline="\n")


def files() -> Iterator[tuple[str, str]]:
    """Every file's name in docs/ and its text: the pictures, and the page that shows them."""
    patterns = [load(file) for file in sorted((ROOT / "patterns").glob("*.yaml"))]
    for pattern in patterns:
        yield f"pictures/{pattern.name}.svg", svg(figure(lower(pattern), about=pattern.about))
    demo = next(pattern for pattern in patterns if pattern.name == "demo")
    yield "pictures/readme.svg", svg(idea(lower(demo)))
    yield "gallery.md", gallery(patterns)


def gallery(patterns: list[Pattern]) -> str:
    """The page of all pictures, in Markdown."""
    parts = ["# The shipped patterns", INTRODUCTION]
    for pattern in patterns:
        parts += [f"## {pattern.name}", f"[{pattern.name}.yaml](../patterns/{pattern.name}.yaml)"]
        parts += [f"![{pattern.about}](pictures/{pattern.name}.svg)"]
    return "\n\n".join(parts) + "\n"


def idea(classes: Classes) -> Scene:
    """Every head of a layer in a colour of its own; and all of them: far blocks in the colour of the head that keeps
    them."""
    small, large, gap, left, top = 150.0, 232.0, 22.0, 36.0, 88.0
    width = 2 * left + classes.heads * (small + gap) + 30 + large
    about = "Each head keeps its last blocks and another shard of the far ones; together the heads keep every block."
    scene = Scene(width, top + large + 52, f"Sharded attention: the pattern {classes.name}", about)
    every = telling_stride(classes)
    y = top + large - small
    together: list[list[str | None]] = [[FIELD] * (i + 1) for i in range(ROWS)]
    for head in range(classes.heads):
        x, hue, cells = left + head * (small + gap), HEADS[head], head_cells(classes, head)
        for line, own in zip(together, cells, strict=True):
            line[:] = [new if new != FIELD else old for old, new in zip(line, own, strict=True)]
        scene.add(
            Cells(x, y, small / ROWS, cells, gap=0.12),
            Label(x, y - 14, f"head {head}", 15, hue, bold=True),
            Label(x, y + small + 24, f"keeps {head}, {head + every}, {head + 2 * every}, …", 13, QUIET),
        )
    x = left + classes.heads * (small + gap) + 30
    arrow = x - 44
    middle = y + small * 0.42
    scene.add(
        Line(((arrow, middle), (arrow + 20, middle)), QUIET, 2),
        Line(((arrow + 13, middle - 7), (arrow + 20, middle), (arrow + 13, middle + 7)), QUIET, 2),
        Cells(x, top, large / ROWS, together, gap=0.12),
        Label(x, top - 14, "together: everything", 15, INK, bold=True),
        Label(x, top + large + 24, "queries run down, keys across", 13, QUIET),
        Label(left, 40, "Every head keeps its last blocks and a shard of the far context", 19, INK, bold=True),
    )
    return scene


def head_cells(classes: Classes, head: int) -> list[list[str | None]]:
    """The colour of every block of a head: one for its window, its own for its shard."""
    layout = classes.layout(0, head)
    colours = [FIELD, *(NEAR if part.kind == "local" else HEADS[head] for part in parts_of(layout))]
    rows = (row_parts(layout, i, ROWS, causal=classes.causal, block=classes.block) for i in range(ROWS))
    return [[colours[number] for number in numbers[: i + 1]] for i, numbers in enumerate(rows)]


def telling_stride(classes: Classes) -> int:
    """The stride of the first head's far blocks."""
    return max(term.every for term in classes.layout(0, 0).terms)


if __name__ == "__main__":
    main()
