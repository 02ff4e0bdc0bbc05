"""Where in a JSON file a value stands, so that what is wrong with it is shown there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patterncc.errors import Span, UsageError
from patterncc.formats.config_defaults import NESTED

Keys = tuple[str | int, ...]  # of objects, and places in lists
LARGEST_SHOWN = 2**20  # bytes of a file of which a line is shown
SECTIONS = {*NESTED, "sparse_attention"}  # what stands in them is read as if it stood outside
HEADS = ("num_attention_heads",)  # where a file says it outside, its sections are not read
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]|[^\s{}\[\],:"]+')


class WrongValue(UsageError):
    """A value of a JSON file that is none of those expected; `keys` lead to it."""

    def __init__(self, keys: str | Keys, message: str, help: str | None = None) -> None:
        super().__init__(message, help)
        self.keys: Keys = (keys,) if isinstance(keys, str) else keys


@contextmanager
def located(path: Path) -> Iterator[None]:
    """Within it a UsageError gets the file's name, and a WrongValue the line and the column, too."""
    try:
        yield
    except UsageError as error:
        only = error.diagnostics[0]
        if only.file is not None:
            raise
        span, line = _shown(path, error.keys) if isinstance(error, WrongValue) else (only.span, only.source_line)
        raise UsageError(only.message, only.help, str(path), span, line) from error.__cause__


def place_of(text: str, keys: Keys) -> tuple[int, int] | None:
    """Where the value starts and ends to which the keys lead; of a list or an object, its first character.

    >>> text = '{"a": [7, 80], "text_config": {"b": "x"}}'
    >>> [text[slice(*place_of(text, keys))] for keys in (("a",), ("a", 1), ("b",))], place_of(text, ("c",))
    (['[', '80', '"x"'], None)
    """
    found = {
        path: place
        for path, place in _values(text)
        if path[-len(keys) :] == keys and SECTIONS.issuperset(path[: -len(keys)])
    }
    if not found:
        return None
    is_outside = any(path == HEADS for path, _ in _values(text))
    return found[(min if is_outside else max)(found, key=len)]


def _values(text: str) -> Iterator[tuple[Keys, tuple[int, int]]]:
    """Every value of a JSON text: the keys that lead to it, where it starts and where it ends."""
    open_: list[list[str | int | None]] = []  # of each object and list that is open, its key or its place
    for token in TOKEN.finditer(text):
        word = token[0]
        if word in "}]":
            open_.pop()
        elif word == ",":
            last = open_[-1]
            last[0] = last[0] + 1 if isinstance(last[0], int) else None
        elif open_ and open_[-1][0] is None:
            open_[-1][0] = json.loads(word)
        else:
            yield tuple(key for (key,) in open_ if key is not None), token.span()
            if word in "{[":
                open_.append([None if word == "{" else 0])


def _shown(path: Path, keys: Keys) -> tuple[Span | None, str | None]:
    """The place of a value as a person counts it, and its line; nothing where the file does not say it."""
    try:
        text = path.read_text(encoding="utf-8-sig") if path.stat().st_size <= LARGEST_SHOWN else ""
    except (OSError, UnicodeDecodeError):
        return None, None
    place = place_of(text, keys)
    if place is None:
        return None, None
    before = text[: place[0]].split("\n")
    column = len(before[-1]) + 1
    return Span(len(before), column, column + place[1] - place[0]), text.split("\n")[len(before) - 1].rstrip("\r")
