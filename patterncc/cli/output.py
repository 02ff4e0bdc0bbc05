"""Output: results go to stdout, errors and progress to stderr, colour only to terminals."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from patterncc.errors import PatternError, clean

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"


def error(problem: PatternError) -> None:
    _tell(problem.render(color=_colours(sys.stderr)))


def note(text: str) -> None:
    """Print a line to stderr: a message for people that is not a result."""
    _tell(clean(text))


def _tell(text: str) -> None:
    """Where stderr takes nothing, the exit code still tells."""
    try:
        print(text, file=sys.stderr)
    except OSError:
        mute(sys.stderr)


def mute(stream: TextIO) -> None:
    """Redirect a stream to nowhere, so that the interpreter does not complain when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def progress(text: str) -> None:
    """What is being done, in a line that the next one replaces; nothing where nobody watches, or where a line cannot be
    replaced. "" wipes it."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        print(f"\r\x1b[K{clean(text)}", end="", file=sys.stderr, flush=True)


def document(data: Any, indent: int | None = None) -> None:
    """The one JSON document of a command with --json."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    print(json.dumps(data, ensure_ascii=not is_unicode, indent=indent))


def paint(text: str, code: str) -> str:
    """The text in a colour, on a terminal that has any.

    >>> paint("holds", GREEN)
    'holds'
    """
    return f"\x1b[{code}m{text}\x1b[0m" if text and _colours(sys.stdout) else text


def columns(
    rows: Iterable[Sequence[str]], *, header: Sequence[str], right: Sequence[str] = (), indent: int = 0
) -> None:
    """Rows under a header, as wide as they are, two spaces between; `right` names the columns set to the right."""
    known = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[n]) for row in known) for n in range(len(header))]
    for number, row in enumerate(known):
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, header, strict=True)
        ]
        line = (" " * indent + "  ".join(cells)).rstrip()
        print(paint(line, DIM) if number == 0 else _verdicts(line))


def _verdicts(line: str) -> str:
    """The line with its verdicts in colour."""
    for word, code in ((" holds", GREEN), (" fails", RED), (" undecided", YELLOW)):
        if word in line:
            return line.replace(word, paint(word, code), 1)
    return line


def warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a Python warning as a line of the command line's own style."""
    note(f"warning: {message}")


def _colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
