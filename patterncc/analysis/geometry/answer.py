"""The result of a search for a counterexample: there is none, this is the smallest, or none was found so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

INFINITY = float("inf")


@dataclass(frozen=True)
class Answer:
    """`pair` is a counterexample (query token, key token), or None. Every token pair whose query lies before `settled`
    has been settled: `pair` is the smallest counterexample iff its query does (infinite: settled for every length)."""

    pair: tuple[int, int] | None = None
    settled: float = INFINITY

    @property
    def holds(self) -> bool | None:
        """True: no counterexample at any length. False: `pair` is one. None: undecided from `settled` on."""
        return False if self.pair is not None else True if self.settled == INFINITY else None

    @property
    def smallest(self) -> bool:
        """Whether `pair` is proved to be the smallest counterexample."""
        return self.pair is not None and self.pair[0] < self.settled


def first(answers: Iterable[Answer]) -> Answer:
    """The answers of several searches combined into one.

    >>> first([Answer(), Answer((7, 1)), Answer((5, 2), settled=6)])
    Answer(pair=(5, 2), settled=6)
    """
    best, settled = None, INFINITY
    for answer in answers:
        settled = min(settled, answer.settled)
        if answer.pair is not None and (best is None or answer.pair < best):
            best = answer.pair
    return Answer(best, settled)
