"""The switch PATTERNCC_DEBUG=value,value for work on the compiler; its values are in the table below.

PATTERNCC_DEBUG=passes patterncc compile demo
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from time import perf_counter
from typing import ParamSpec, TypeVar

from patterncc.errors import UsageError, counted, did_you_mean

VALUES = {
    "passes": "print what every pass gives, on stderr",
    "time": "print how long every pass takes, on stderr",
    "traceback": "print where in patterncc an unexpected error came from, on stderr",
}
LONGEST = 40  # lines of one dump

P = ParamSpec("P")
R = TypeVar("R")


def debugging(value: str) -> bool:
    """Whether PATTERNCC_DEBUG asks for this value, which must be one of VALUES."""
    return VALUES[value] != "" and value in _asked(os.environ.get("PATTERNCC_DEBUG", ""))


def traced(one_pass: Callable[P, R]) -> Callable[P, R]:
    """The pass, its result checked each time (`patterncc.ir.check`) and, when asked for, timed and printed."""

    @wraps(one_pass)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        from patterncc.ir.check import check

        start = perf_counter()
        result = one_pass(*args, **kwargs)
        taken = perf_counter() - start
        if debugging("time"):
            print(f"{one_pass.__name__}: {taken * 1e3:.2f} ms", file=sys.stderr)
        if debugging("passes"):
            print(f"--- {one_pass.__name__}", *_excerpt(result), sep="\n", file=sys.stderr)
        check(result, after=one_pass.__name__)
        return result

    return checked


def _excerpt(value: object) -> list[str]:
    """The value's text, cut after LONGEST lines."""
    lines = str(value).splitlines()
    return (
        lines if len(lines) <= LONGEST else [*lines[:LONGEST], f"... and {counted(len(lines) - LONGEST, 'more line')}"]
    )


@lru_cache(maxsize=8)
def _asked(text: str) -> frozenset[str]:
    words = frozenset(word.strip() for word in text.split(",") if word.strip())
    if unknown := sorted(words - VALUES.keys()):
        hint = did_you_mean(unknown[0], VALUES)
        known = "; ".join(f"{value}: {meaning}" for value, meaning in VALUES.items())
        raise UsageError(f"unknown value of PATTERNCC_DEBUG: {unknown[0]}", f"did you mean {hint}?" if hint else known)
    return words
