"""Which heads, or which layers: all | rest | 3 | [0, 5] | "0-27" | "1::2", and lists of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from patterncc.errors import quote
from patterncc.language.ranges import spans

MOST_ITEMS = 4096
EXAMPLES = 'all, rest, 3, [0, 5], "0-27" or "1::2"'

_NUMBER = re.compile("[0-9]{1,9}")


class SelectorError(Exception):
    """A selector that is not one, or that names what does not exist."""

    def __init__(self, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.message, self.help = message, help


@dataclass(frozen=True)
class Selector:
    """What was written: numbers and slices (start, stop or None, step), or one of the words."""

    text: str
    items: tuple[tuple[int, int | None, int], ...] = ()
    word: str | None = None  # "all", "rest"

    @staticmethod
    def parse(value: object) -> Selector:
        """Read a selector as YAML gives it: a number, a text or a list of both.

        >>> Selector.parse("0-3, 8").select(16, "head")
        (0, 1, 2, 3, 8)
        """
        parts = value if isinstance(value, list) else [value]
        if not parts:
            raise SelectorError("an empty list selects nothing", f"write {EXAMPLES}")
        if len(parts) > MOST_ITEMS:
            raise SelectorError(f"a selector of {len(parts)} items; the most is {MOST_ITEMS}")
        words = [part.strip() for part in parts if isinstance(part, str) and part.strip() in ("all", "rest")]
        if words and len(parts) == 1:
            return Selector(words[0], word=words[0])
        if words:
            raise SelectorError(f"{quote(words[0])} stands alone; it cannot be one item of a list")
        items = [item for part in parts for item in _items(part)]
        return Selector(", ".join(str(part) for part in parts), tuple(items))

    def select(self, count: int, what: str, rest: Sequence[int] = ()) -> tuple[int, ...]:
        """The numbers selected out of 0 … count-1, in the order written; `rest` is what the word means."""
        if self.word == "all":
            return tuple(range(count))
        if self.word == "rest":
            return tuple(rest)
        chosen: dict[int, None] = {}
        for start, stop, step in self.items:
            last = count if stop is None else stop
            if start >= count or last > count:
                wrong = start if start >= count else last - 1
                raise SelectorError(f"{what} {wrong} does not exist; {what}s are numbered {compress(range(count))}")
            for number in range(start, last, step):
                if number in chosen:
                    raise SelectorError(f"{what} {number} is named twice", "name each of them once")
                chosen[number] = None
        if not chosen:
            raise SelectorError(f"{quote(self.text)} selects no {what}")
        return tuple(chosen)


def compress(numbers: Iterable[int]) -> str:
    """Numbers as people write them.

    >>> compress([7, 0, 1, 2, 3, 9, 10])
    '0-3, 7, 9, 10'
    """
    texts = spans(sorted(numbers), shortest=3)
    return ", ".join(texts if len(texts) <= 8 else [*texts[:7], f"... {len(texts) - 8} more ...", texts[-1]])


def _items(part: object) -> list[tuple[int, int | None, int]]:
    """One item of a list, or a text with commas, as slices."""
    if type(part) is int:
        if part < 0:
            raise SelectorError(f"{part} is below 0", "heads and layers are counted from 0")
        return [(part, part + 1, 1)]
    if not isinstance(part, str):
        raise SelectorError(f"a selector is one of {EXAMPLES}")
    pieces = part.split(",")
    if len(pieces) > MOST_ITEMS:
        raise SelectorError(f"a selector of {len(pieces)} items; the most is {MOST_ITEMS}")
    return [_piece(piece.strip(), part) for piece in pieces]


def _piece(piece: str, whole: str) -> tuple[int, int | None, int]:
    """One number, range or slice; each character is looked at once."""
    ends, steps = _numbers(piece, "-"), _numbers(piece, ":")
    if len(ends) == 1 and ends[0] is not None:
        return ends[0], ends[0] + 1, 1
    if len(ends) == 2 and ends[0] is not None and ends[1] is not None:
        if ends[1] < ends[0]:
            raise SelectorError(f"the range {quote(piece)} runs backwards", f"did you mean {ends[1]}-{ends[0]}?")
        return ends[0], ends[1] + 1, 1
    if len(steps) in (2, 3):
        start, stop, step = (*steps, None)[:3]
        if step == 0:
            raise SelectorError(f"the step of {quote(piece)} is 0", "a step is at least 1")
        return start or 0, stop, step or 1
    raise SelectorError(f"{quote(whole)} is not a selector", f"write {EXAMPLES}")


def _whole(text: str) -> int:
    """A number as people count: 010 is octal to some, and decimal to others."""
    if text[0] == "0" != text:
        raise SelectorError(f"the number {quote(text)} begins with 0", f"write {text.lstrip('0') or 0}")
    return int(text)


def _numbers(piece: str, between: str) -> list[int | None]:
    """The numbers of a range or a slice, None for one that is left out; none at all for what is neither.

    >>> _numbers("1 : : 2", ":"), _numbers("0-27", "-"), _numbers("h", "-")
    ([1, None, 2], [0, 27], [])
    """
    texts = [text.strip() for text in piece.split(between, maxsplit=3)]
    if any(text and not _NUMBER.fullmatch(text) for text in texts):
        return []
    return [_whole(text) if text else None for text in texts]
