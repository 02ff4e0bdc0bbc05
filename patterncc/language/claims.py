"""Who claims which head or layer: each by exactly one selector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from patterncc.language.document import BAD, Path
from patterncc.language.selector import Selector, SelectorError, compress


class Reporter(Protocol):
    """A function that records a mistake at a path of the file. `earlier` is the path of the value that it conflicts
    with."""

    def __call__(
        self,
        path: Path,
        message: str,
        help: str | None = None,
        *,
        key: bool = False,
        inside: tuple[int, int] | None = None,
        earlier: Path | None = None,
    ) -> None: ...


@dataclass(frozen=True)
class Claims:
    """The numbers that each selector claims (None: unknown because of a mistake), and the numbers that no selector
    claims."""

    chosen: tuple[tuple[int, ...] | None, ...]
    unclaimed: tuple[int, ...]

    @property
    def complete(self) -> bool:
        return None not in self.chosen


def claim(selectors: Sequence[tuple[Path, Selector]], count: int, what: str, report: Reporter) -> Claims:
    """Share out 0 … count-1 among selectors; two that claim the same number are reported.

    >>> claim([(("a",), Selector.parse("0-2")), (("b",), Selector.parse("rest"))], 5, "head", print).chosen
    ((0, 1, 2), (3, 4))
    """
    chosen: list[tuple[int, ...] | None] = [None] * len(selectors)
    owner: dict[int, int] = {}
    known = True
    for n, (path, selector) in enumerate(selectors):
        if selector is BAD or selector.word == "rest":
            known = known and selector is not BAD
            continue
        try:
            chosen[n] = numbers = selector.select(count, what)
        except SelectorError as error:
            report(path, error.message, error.help)
            known = False
            continue
        twice: dict[int, list[int]] = {}
        for number in numbers:
            if owner.setdefault(number, n) != n:
                twice.setdefault(owner[number], []).append(number)
        for other, shared in twice.items():
            report(path, f"{named(what, shared)} claimed twice", None, earlier=selectors[other][0])
    left = tuple(number for number in range(count) if number not in owner)
    rests = [n for n, (_, selector) in enumerate(selectors) if selector is not BAD and selector.word == "rest"]
    for n in rests[1:]:
        report(selectors[n][0], "`rest` is claimed twice", f"one entry takes the {what}s that no other claims",
               earlier=selectors[rests[0]][0])  # fmt: skip
    if rests and known:
        if not left:
            report(selectors[rests[0]][0], f"no {what} is left for `rest`", f"the other entries claim every {what}")
        chosen[rests[0]], left = left, ()
    elif rests:
        left = ()
    return Claims(tuple(chosen), left)


def named(what: str, numbers: Sequence[int]) -> str:
    """`head 3 is`, or `heads 3-5, 7 are`."""
    return f"{what} {numbers[0]} is" if len(numbers) == 1 else f"{what}s {compress(numbers)} are"
