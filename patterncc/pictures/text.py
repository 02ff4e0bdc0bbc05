"""A layout as a drawing in plain characters: for terminals without colour, and for generated packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from patterncc.ir.layout import Layout
from patterncc.pictures.parts import KINDS, parts_of, row_parts

SIGNS = {
    "dense": "#",
    "local": "#",
    "stride": "|",
    "sink": "o",
    "chunk": ":",
    "globals": "=",
    "random": "?",
    "mask": "%",
}
PARTLY, DROPPED = "+", "."


def grid(layout: Layout, *, causal: bool, block: int, rows: int, gap: str = " ") -> list[str]:
    """The first `rows` rows and columns, one sign a block, with `gap` between signs: with one space a block is about
    square. `legend` says what the signs mean.

    >>> layout = Layout.parse("d<2 | j%4==1")
    >>> print(*grid(layout, causal=True, block=64, rows=6), *legend([layout]), sep="\\n")
    #
    # #
    . # #
    . | # #
    . | . # #
    . | . . # #
    # local
    | stride
    . not kept
    """
    parts = parts_of(layout)
    signs = [DROPPED, *(SIGNS[part.kind] if part.whole else PARTLY for part in parts)]
    lines = []
    for i in range(rows):
        numbers = row_parts(layout, i, rows, causal=causal, block=block)
        lines.append(gap.join(signs[number] for number in numbers[: i + 1 if causal else rows]))
    return lines


def sampled(lines: list[str], step: int, choose: Callable[[str], str]) -> list[str]:
    """One sign for every step × step, chosen from theirs (`.` sorts below all others)."""
    if step == 1:
        return lines
    return [
        "".join(
            choose("".join(line[left : left + step] for line in lines[top : top + step]))
            for left in range(0, len(lines[min(top + step, len(lines)) - 1]), step)
        )
        for top in range(0, len(lines), step)
    ]


def kept_most(signs: str) -> str:
    """The commonest sign of a kept block, if there is one."""
    return Counter(signs.replace(DROPPED, "") or DROPPED).most_common(1)[0][0]


def legend(layouts: Iterable[Layout]) -> list[str]:
    """What the signs of some layouts mean, in the order of `KINDS`.

    >>> legend([Layout.parse("d<2 | sink 4 tokens"), Layout.parse("all")])
    ['# dense', '# local', '+ kept in part', '. not kept']
    """
    parts = [part for layout in layouts for part in parts_of(layout)]
    kinds = {part.kind for part in parts if part.whole}
    entries = [f"{SIGNS[kind]} {kind}" for kind in KINDS if kind in kinds]
    entries += [f"{PARTLY} kept in part"] if not all(part.whole for part in parts) else []
    return [*entries, f"{DROPPED} not kept"]


def telling_rows(layouts: Iterable[Layout], block: int, *, least: int = 16, most: int = 96) -> int:
    """How many rows show what the layouts do: three times their largest distance, period or bound, within limits.

    >>> telling_rows([Layout.parse("d<16 | j%16==3")], block=64)
    48
    """
    scale = 1
    for layout in layouts:
        for term in layout.terms:
            bounds = (term.d_from, term.d_to, term.j_from, term.j_to, term.i_from, term.i_to)
            scale = max(scale, term.every, *(abs(bound) for bound in bounds if bound is not None))
        scale = max(scale, layout.chunk, max(layout.window or (0,)) // block, layout.sink // block)
        scale = max([scale, *((high or low) // block for low, high in layout.bands)])
        scale = max(scale, layout.random.blocks if layout.random else 0, layout.mask.rows // 2 if layout.mask else 0)
    return min(most, max(least, -(-3 * scale // 8) * 8))
