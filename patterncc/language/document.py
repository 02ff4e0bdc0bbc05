"""A file's text as plain data, with the place of every key and value in it, and the mistakes found so far."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from patterncc.errors import Diagnostic, Span
from patterncc.language.limits import MOST_MISTAKES

Path = tuple[str | int, ...]


class Bad:
    """What stands in the data for a value that was refused; a mistake about it has been noted."""

    def __repr__(self) -> str:
        return "BAD"


BAD: Any = Bad()


@dataclass
class Document:
    """A file's text, its data, where each key and value stands (as [start, end) in the text), and its mistakes."""

    text: str
    file: str
    data: Any = BAD
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    incomplete: set[Path] = field(default_factory=set)  # mappings of which a refused key was left out
    aliases: set[str] = field(default_factory=set)  # those noted
    diagnostics: list[Diagnostic] = field(default_factory=list)
    readings: list[tuple[int, str]] = field(default_factory=list)  # scalars refused: where they begin, and why

    def __post_init__(self) -> None:
        self._starts = [0, *(found.end() for found in re.finditer(r"\r\n|\n|\r", self.text))]
        self._lines: dict[int, str] = {}

    def line_at(self, index: int) -> int:
        """The line that holds a character, from 1."""
        return bisect_right(self._starts, index)

    def note(self, at: tuple[int, int] | None, message: str, help: str | None = None) -> None:
        """Collect a mistake at a stretch of the text; beyond `MOST_MISTAKES` they are dropped."""
        if len(self.diagnostics) >= MOST_MISTAKES:
            return
        if at is None:
            self.diagnostics.append(Diagnostic(message, self.file, None, help))
            return
        span, line = self.span(at)
        self.diagnostics.append(Diagnostic(message, self.file, span, help, line))

    def span(self, at: tuple[int, int]) -> tuple[Span, str]:
        """A stretch of the text, as far as its first line goes; and that line."""
        start = min(at[0], len(self.text))
        number = self.line_at(start)
        first = self._starts[number - 1]
        if number not in self._lines:  # a line is kept once, however many mistakes it holds
            stop = self._starts[number] if number < len(self._starts) else len(self.text)
            self._lines[number] = self.text[first:stop].rstrip("\r\n")
        line = self._lines[number]
        end = max(start + 1, min(at[1], first + len(line)))
        return Span(number, start - first + 1, end - first + 1), line

    def note_reading(self, at: tuple[int, int], message: str, help: str) -> None:
        """Collect a scalar that may not stand unquoted, where a key of ours has it for a value."""
        self.note(at, message, help)
        self.readings.append((at[0], message))

    def forget_readings(self, path: Path) -> None:
        """Drop them within the value at `path`: it is that of an unknown key."""
        start, stop = self.values.get(path, (0, 0))
        dropped = {(self.span((at, at))[0].line, message) for at, message in self.readings if start <= at < stop}
        kept = [d for d in self.diagnostics if d.span is None or (d.span.line, d.message) not in dropped]
        self.diagnostics[:] = kept

    def place(self, path: Path, *, key: bool = False, inside: tuple[int, int] | None = None) -> tuple[int, int] | None:
        """Where the value at `path` stands, or its key, or a stretch of its text; without a place, its parent's."""
        while path not in self.values and path:
            path = path[:-1]
        if key and path in self.keys:
            return self.keys[path]
        at = self.values.get(path)
        if at and inside:
            value = self.at(path)
            found = self.text.find(value, *at) if isinstance(value, str) else -1
            if found >= 0:
                return found + inside[0], found + max(inside[1], inside[0] + 1)
        return at

    def at(self, path: Path) -> Any:
        """The data at `path`."""
        value = self.data
        for step in path:
            value = value[step]
        return value
