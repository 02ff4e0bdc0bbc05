"""Mistakes as people see them: the place, the line itself, what was expected, and how to mend it.

patterns/phi3.yaml:9:13: offset 9 must be below the stride, 8
  9 |     offset: 9
    |             ^
  help: offsets are taken modulo the stride; did you mean 1?
"""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

MOST_SHOWN = 50  # mistakes of one file that are written out; the rest are counted
SIZES = {"layers": "layer", "heads": "head", "kv_heads": "KV head", "head_dim": "number", "v_head_dim": "number"}
LINE_WIDTH = 100  # columns of a source line that are shown
TAB_WIDTH = 4

_BOLD, _RED, _BLUE, _RESET = "\x1b[1m", "\x1b[31m", "\x1b[34m", "\x1b[0m"


@dataclass(frozen=True, order=True)
class Span:
    """A place in a text: line and columns count characters from 1; `end` is the column after the last one."""

    line: int
    column: int
    end: int


@dataclass(frozen=True)
class Diagnostic:
    """One mistake: what was expected, where, and a hint."""

    message: str
    file: str | None = None
    span: Span | None = None
    help: str | None = None
    source_line: str | None = None

    def render(self, color: bool = False) -> str:
        """The mistake in the form of this file's docstring, without a final newline.

        >>> print(Diagnostic("block is 60", "a.yaml", Span(3, 8, 10), source_line="block: 60").render())
        a.yaml:3:8: block is 60
          3 | block: 60
            |        ^^
        """
        bold, red, blue, reset = (_BOLD, _RED, _BLUE, _RESET) if color else ("", "", "", "")
        place = "" if self.file is None else clean(self.file)
        place += f":{self.span.line}:{self.span.column}" if self.span else ""
        lines = [f"{bold}{place}{': ' if place else ''}{reset}{clean(self.message)}"]
        if self.span and self.source_line is not None:
            number = str(self.span.line)
            shown, before, marked = _excerpt(self.source_line, self.span)
            lines.append(f"  {blue}{number} |{reset} {shown}".rstrip())
            lines.append(f"  {blue}{' ' * len(number)} |{reset} {' ' * before}{red}{'^' * marked}{reset}")
        if self.help:
            lines.append(f"  {bold}help:{reset} {clean(self.help)}")
        return "\n".join(lines)


class PatternError(Exception):
    """All mistakes of one pattern file, sorted by position."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        ordered = sorted(diagnostics, key=lambda d: (d.file or "", d.span or Span(0, 0, 0)))
        self.diagnostics: tuple[Diagnostic, ...] = tuple(ordered)
        super().__init__(self.diagnostics)

    def render(self, color: bool = False) -> str:
        """Every mistake, an empty line between them; beyond `MOST_SHOWN` they are only counted."""
        shown = [d.render(color) for d in self.diagnostics[:MOST_SHOWN]]
        left = len(self.diagnostics) - len(shown)
        shown += [f"and {left} more mistake{'s' if left > 1 else ''}"] if left else []
        return "\n\n".join(shown)

    def __str__(self) -> str:
        return self.render()


class UsageError(PatternError):
    """A wrong value on the command line, in a file that it names, or of an argument of a function that a person
    calls."""

    def __init__(
        self,
        message: str,
        help: str | None = None,
        file: str | None = None,
        span: Span | None = None,
        source_line: str | None = None,
    ) -> None:
        super().__init__([Diagnostic(message, file, span, help, source_line)])

    def __reduce__(self) -> tuple[type[UsageError], tuple[str | Span | None, ...]]:
        only = self.diagnostics[0]
        return UsageError, (only.message, only.help, only.file, only.span, only.source_line)


def did_you_mean(word: str, known: Iterable[str], *, digits: int | None = None) -> str | None:
    """The known word closest to `word`, or None when none is close. `digits`: how many of its digits may be others,
    where another number is another thing; their order may differ in any case.

    >>> did_you_mean("ofset", ["heads", "offset", "stride"])
    'offset'
    >>> [did_you_mean(word, ["sm_80", "sm_90"], digits=0) for word in ("sm_75", "sm90", "sm_08")]
    [None, 'sm_90', 'sm_80']
    """
    number = Counter(filter(str.isdigit, word[:64]))
    by_lower = {}
    for name in known:
        others = Counter(filter(str.isdigit, name))
        if digits is None or max((number - others).total(), (others - number).total()) <= digits:
            by_lower[name.lower()] = name
    close = difflib.get_close_matches(word[:64].lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def clean(text: str) -> str:
    r"""`text` on one line, with nothing in it that moves a terminal's cursor or turns its direction.

    >>> clean("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    return "".join(c if not _hides(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def counted(number: int, what: str, many: str | None = None) -> str:
    """How many of a thing; `many` is the word for several where it is not `what` with an s.

    >>> counted(1, "token"), counted(131072, "token"), counted(0, "class", "classes")
    ('1 token', '131,072 tokens', '0 classes')
    """
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def numbered(what: str, number: int) -> str:
    """The numbers of so many things, counted from 0.

    >>> numbered("layer", 4), numbered("head", 1)
    ('layers 0 to 3', 'head 0 only')
    """
    return f"{what} 0 only" if number == 1 else f"{what}s 0 to {number - 1}"


def size_of(key: str, number: int) -> str:
    """A size in the words of messages.

    >>> size_of("kv_heads", 1), size_of("head_dim", 128), size_of("v_head_dim", 64)
    ('1 KV head', '128 numbers a head', '64 numbers a value')
    """
    of = {"head_dim": " a head", "v_head_dim": " a value"}.get(key, "")
    return f"{counted(number, SIZES[key])}{of}"


def reason(error: OSError) -> str:
    """Why the system refused, in the words of messages.

    >>> reason(PermissionError(13, "Permission denied")), reason(FileExistsError(17, "File exists"))
    ('permission denied', 'a file stands where a folder is needed')
    """
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file stands where a folder is needed"
    return (error.strerror or str(error)).lower()


def quote(text: str, most: int = 40) -> str:
    """`text` between backquotes, cut when long: how messages name what the file says."""
    return f"`{clean(text if len(text) <= most else text[: most - 3] + '...')}`"


def _hides(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _excerpt(line: str, span: Span) -> tuple[str, int, int]:
    """The part of a line to show, the columns before the mark, and the mark's width."""
    start = min(span.column - 1, len(line))
    first, last, columns = 0, 0, 0
    crowded = len(line) > LINE_WIDTH or _width(line) > LINE_WIDTH
    if crowded and (start > LINE_WIDTH or _width(line[:start]) > LINE_WIDTH * 3 // 4):
        first = last = start  # begin so far before the mark that it stands past the middle
        while first and columns < LINE_WIDTH * 3 // 5:
            first -= 1
            columns += _width(line[first])
    while last < len(line) and (columns := columns + _width(line[last])) <= LINE_WIDTH:
        last += 1
    shown = ("..." if first else "") + _displayed(line[first:last]) + ("..." if last < len(line) else "")
    before = _width(line[first:start]) + (3 if first else 0) + span.column - 1 - start
    return shown, before, max(1, _width(line[start : min(span.end - 1, last)]))


def _displayed(text: str) -> str:
    return "".join(" " * TAB_WIDTH if c == "\t" else "\ufffd" if _hides(c) else c for c in text)


def _width(text: str) -> int:
    """Terminal columns that `_displayed(text)` takes."""
    return sum(
        TAB_WIDTH if c == "\t"
        else 1 if _hides(c)
        else 0 if unicodedata.category(c) in ("Mn", "Me")
        else 2 if unicodedata.east_asian_width(c) in ("W", "F")
        else 1
        for c in text
    )  # fmt: skip
