"""`patterncc show`: a drawing."""

from __future__ import annotations

from pathlib import Path

from patterncc.cli import output as out
from patterncc.cli.table import blocks, check_place, tokens
from patterncc.errors import UsageError
from patterncc.language import load
from patterncc.passes import lower
from patterncc.runtime.gallery import find


def run(name: str, layer: int | None, head: int | None, union: bool, length: str | None, output: Path | None) -> int:
    """Draw in the terminal, or write a picture."""
    from patterncc.pictures import show_terminal, write

    pattern = load(find(name))
    check_place(pattern, layer, head)
    rows = None if length is None else blocks(pattern, tokens(length))
    classes = lower(pattern)
    if output is None:
        from rich.console import Console

        show_terminal(classes, layer=layer, head=head, union=union, rows=rows, console=Console(highlight=False))
        return 0
    try:
        write(classes, output, layer=layer, head=head, union=union, rows=rows, about=pattern.about)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error
    out.note(f"drawn: {output}")
    return 0
