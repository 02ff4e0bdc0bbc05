"""A run as a whole: the order of the slow tests, and how long each file took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

FILES = 10  # that took longest


def most_telling_first(items: Iterable[Any]) -> list[Any]:
    """The items in the order in which they tell most: the first case of each test, then the second of each, and so on.
    All slow tests take hours; a run that is ended before then has tried a bit of everything."""
    cases: Counter[str] = Counter()
    ranks = []
    for item in items:
        test = item.nodeid.partition("[")[0]
        ranks.append((cases[test], item))
        cases[test] += 1
    return [item for _, item in sorted(ranks, key=lambda pair: pair[0])]


def slowest_files(reports: Iterable[Any]) -> list[str]:
    """Lines that say how long all phases of all tests took in sum, and of the files that took longest each: seconds on
    the clock, of all workers."""
    seconds: Counter[str] = Counter()
    for report in reports:
        if hasattr(report, "duration"):
            seconds[report.nodeid.partition("::")[0]] += report.duration
    whole = f"{sum(seconds.values()):7.1f} s  all {len(seconds)} files"
    return [whole, *(f"{took:7.1f} s  {file}" for file, took in seconds.most_common(FILES))]
