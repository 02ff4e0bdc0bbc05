"""How many requests fit into a card's memory, dense and with a pattern."""

from __future__ import annotations

import re
from dataclasses import dataclass

from patterncc.errors import UsageError, quote

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def memory(text: str, option: str) -> int:
    """Bytes of "8GiB", "80 GB" or "512M"; UsageError that names the option.

    >>> memory("8GiB", "--kv-budget"), memory("1.5k", "--memory")
    (8589934592, 1500)
    """
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s{0,4}([kmgt]?i?)b?", text.strip().lower())
    if not found or found[2] not in UNITS:
        raise UsageError(f"{option} is {quote(text, 40)}; it takes a size", "8GiB, 80GB or 512MiB")
    size = int(float(found[1]) * UNITS[found[2]])
    if not 1 <= size <= 2**60:
        raise UsageError(f"{option} is {quote(text, 40)}; it takes 1 byte to 1 EiB")
    return size


@dataclass(frozen=True)
class Fit:
    """Whole requests that fit beside the weights; a count is None where even the weights do not fit."""

    memory: int
    weights: int  # bytes; 0 where they are not known
    kept: int | None
    dense: int | None

    def __str__(self) -> str:
        """
        >>> str(Fit(80, 16, 11, 3)), str(Fit(8, 16, None, None))
        ('fits 11 requests; dense fits 3', 'the weights alone do not fit')
        """
        if self.kept is None:
            return "the weights alone do not fit"
        return f"fits {self.kept:,} request{'s' * (self.kept != 1)}; dense fits {self.dense:,}"


def fit(memory: int, weights: int, kv_kept: int, kv_dense: int) -> Fit:
    """Requests of kv_kept, or kv_dense, bytes each; activations are not counted."""
    left = memory - weights
    if left < 0:
        return Fit(memory, weights, None, None)
    return Fit(memory, weights, left // max(kv_kept, 1), left // max(kv_dense, 1))
