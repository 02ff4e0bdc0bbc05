"""`patterncc show`: a drawing of one pattern, or of two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patterncc.analysis.costs.price import LENGTH
from patterncc.cli import output as out
from patterncc.cli.table import blocks, check_place, tokens
from patterncc.errors import UsageError
from patterncc.language import load
from patterncc.passes import lower
from patterncc.runtime.gallery import find

if TYPE_CHECKING:
    from rich.console import Console

LEAST_WIDTH, USUAL_WIDTH = 20, 80  # columns of a terminal


def run(
    names: list[str],
    layer: int | None,
    head: int | None,
    union: bool,
    overview: bool,
    length: str | None,
    output: Path | None,
) -> int:
    """Draw in the terminal, or write a picture."""
    from patterncc.pictures import show_terminal, write

    if len(names) > 2:
        raise UsageError(f"show takes one pattern, or two to see side by side, not {len(names)}")
    if overview and (union or layer is not None or head is not None):
        raise UsageError("--overview shows every head of every layer: leave out --layer, --head and --union")
    if union and head is not None:
        raise UsageError("--union counts the heads that keep a block: leave out --head")
    patterns = [load(find(name)) for name in names]
    for pattern in patterns:
        check_place(pattern, layer, head)
    count = LENGTH if length is None else tokens(length)
    rows = None if length is None or overview else blocks(patterns[0], count)
    first, *others = map(lower, patterns)
    beside = others[0] if others else None
    if output is None:
        show_terminal(
            first,
            beside,
            layer=layer,
            head=head,
            union=union,
            rows=rows,
            console=_console(),
            length=count,
            overview=overview,
        )
        return 0
    write(
        first,
        output,
        beside,
        layer=layer,
        head=head,
        union=union,
        rows=rows,
        about=patterns[0].about,
        length=count,
        overview=overview,
    )
    out.note(f"drawn: {output}")
    return 0


def _console() -> Console:
    """A console that leaves a closed pipe to `main`, as every other command does; rich's own exits with 1. A width that
    nothing can be drawn in, such as `COLUMNS=0` in some containers, is nobody's terminal."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = Piped(highlight=False)
    if console.width < LEAST_WIDTH:
        console.width = USUAL_WIDTH
    return console
