"""Lists of numbers as short text."""

from __future__ import annotations

from collections.abc import Iterable


def ranges(numbers: Iterable[int]) -> str:
    """Sorted numbers as ranges, such as "0-3, 8".

    >>> ranges([0, 1, 2, 5, 7, 8]), ranges([0, 2, 4, 6])
    ('0-2, 5, 7-8', '0, 2, 4, 6')
    """
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][-1] == n - 1:
            runs[-1] = [runs[-1][0], n]
        else:
            runs.append([n])
    return ", ".join("-".join(map(str, run)) for run in runs)
