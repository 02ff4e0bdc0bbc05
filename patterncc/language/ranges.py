"""Numbers as ranges in text: what selectors, messages, titles and docstrings write of heads, layers and columns."""

from __future__ import annotations

from collections.abc import Iterable


def ranges(numbers: Iterable[int]) -> str:
    """Rising numbers as ranges.

    >>> ranges([0, 1, 2, 5, 7, 8]), ranges([0, 2, 4, 6])
    ('0-2, 5, 7-8', '0, 2, 4, 6')
    """
    return ", ".join(spans(numbers))


def spans(numbers: Iterable[int], *, shortest: int = 2) -> list[str]:
    """The text of each run of consecutive numbers, or of its numbers where they are fewer than `shortest`.

    >>> spans([0, 1, 2, 5, 7, 8], shortest=3)
    ['0-2', '5', '7, 8']
    """
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return [f"{a}-{b}" if b - a + 1 >= shortest else ", ".join(map(str, range(a, b + 1))) for a, b in runs]
