"""The overview in a terminal: a letter for every head of every layer, below it what the letters mean."""

from __future__ import annotations

from collections import Counter
from textwrap import wrap

from rich.text import Text

from patterncc.errors import counted
from patterncc.ir.classes import Classes
from patterncc.pictures.drawn import Drawn
from patterncc.pictures.heads import on
from patterncc.pictures.overview import Overview, runs
from patterncc.pictures.palette import NIGHT_FIELD

LINES = 32  # layers that have a line each; of more, equal neighbours share one
INDENT = " " * 5  # of a rule on a line of its own
SHARES = 8  # characters of a layer's density


def grid(classes: Classes, found: Overview, number: int, width: int, colour: bool) -> Drawn:
    """The cells of pattern `number`, a line a layer, with the mean density of its heads."""
    lines = found.cells[number]
    rows = [(range(k, k + 1), line) for k, line in enumerate(lines)] if len(lines) <= LINES else runs(lines)
    densities = found.densities(classes, number)
    names = [str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}" for layers, _ in rows]
    edge, heads = max(map(len, ["layer", *names])) + 1, max(map(len, lines))
    steps = {room: -(-heads // max(8, width - edge - room)) for room in (SHARES, 0)}  # heads that share a character
    shares = SHARES if steps[SHARES] == steps[0] else 0
    step = steps[shares]
    size = 2 if edge + 2 * heads + shares <= width else 1
    across = -(-heads // step) * size
    top = Text("layer".rjust(edge - 1), "dim").append(f" {_numbers(heads, size, step)[:across].ljust(across)}")
    drawn = [top.append("    kept" if shares else "")]
    for name, (layers, line) in zip(names, rows, strict=True):
        text = Text(name.rjust(edge - 1) + " ", "dim")
        for start in range(0, len(line), step):
            kind = found.kinds[Counter(line[start : start + step]).most_common(1)[0][0]]
            ground = kind.colour(NIGHT_FIELD)
            text.append(kind.letter.ljust(size), f"not dim {on(ground)} on {ground}" if colour else "not dim")
        text.pad_right(edge + across - text.cell_len)
        text.append(f"{densities[layers[0]]:{SHARES}.1%}" if shares else "", "dim")
        drawn.append(text)
    if step > 1:
        drawn.append(Text(f"(a letter stands for {step} heads, the commonest kind of them)", "dim"))
    return Drawn(drawn, edge + across + shares)


def key(found: Overview, width: int, colour: bool) -> list[Text]:
    """For each kind its letter, its parts, what a head of it keeps, how many there are, its rule."""
    parts = max(len(kind.parts) for kind in found.kinds)
    shares = max(len(kind.density) for kind in found.kinds)
    counts = max(len(f"{kind.count:,}") for kind in found.kinds)
    lines = [Text(f"a head of each kind keeps, at {counted(found.length, 'token')}:", "dim")]
    for kind in found.kinds:
        ground = kind.colour(NIGHT_FIELD)
        line = Text().append(f" {kind.letter} ", f"{on(ground)} on {ground}" if colour else "")
        line.append(f" {kind.parts:{parts}}  {kind.density:>{shares}}  ")
        line.append(f"{kind.count:>{counts},} {'heads' if kind.count > 1 else 'head '}  ")
        rule = kind.rule + (f"  ({kind.where})" if kind.where else "")
        rule = rule if colour else rule.replace("…", "..")  # without colour plain ASCII
        if line.cell_len + len(rule) <= width:
            lines.append(line.append(rule, "dim"))
            continue
        line.rstrip()
        line.truncate(width)
        room = max(width - len(INDENT), 8)
        more = wrap(rule, room, max_lines=3, placeholder=" ..")
        lines += [line, *(Text(INDENT + text, "dim") for text in more)]
    return lines


def _numbers(heads: int, size: int, step: int) -> str:
    """The numbers of heads above their columns, as many as have room."""
    most = len(str(heads - 1)) + 1
    every = next(n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096) if n * size >= most * step)
    text = ""
    for head in range(0, heads, every):
        text = text.ljust(head // step * size) + str(head)
    return text
