"""Times that can be compared: everything that is compared runs in alternation, in one process, and medians are kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

LONG_S = 5.0  # a call that takes longer is not rehearsed: its first run counts
VERY_LONG_S = 7.5  # and this one is not repeated either: its row says that it ran once
SHORT_S = 0.5  # and one that takes less has all of its runs
PAUSE_S = 0.02  # OpenMP's threads spin for some milliseconds after their last work, which is not the next call's to pay


@dataclass(frozen=True)
class Sample:
    """Seconds of one call: the median of several runs, and their least and greatest. `cpu_s` counts all threads."""

    runs: int
    wall_s: float
    wall_min_s: float
    wall_max_s: float
    cpu_s: float

    def json(self) -> dict[str, float]:
        return {name: round(value, 7) for name, value in asdict(self).items()}


def alternate(calls: Mapping[str, Callable[[], object]], runs: int = 5, limit_s: float = 20.0) -> dict[str, Sample]:
    """Run the calls in turn, A B A B …, after one that is not counted. After `limit_s`, once two turns are done, only
    calls of less than half a second go on. Calls of more than five seconds run twice in all, of more than 7.5 once."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    most = dict.fromkeys(calls, runs)
    for name, call in calls.items():
        first = _timed(call)
        if first[0] > LONG_S:
            wall[name], cpu[name] = [first[0]], [first[1]]
            most[name] = 1 if first[0] > VERY_LONG_S else 2
    begin = time.perf_counter()
    for turn in range(runs):
        late = turn >= 2 and time.perf_counter() - begin > limit_s
        for name, call in calls.items():
            if len(wall[name]) < most[name] and not (late and max(wall[name]) > SHORT_S):
                time.sleep(PAUSE_S)
                seconds = _timed(call)
                wall[name].append(seconds[0])
                cpu[name].append(seconds[1])
    return {name: sample(wall[name], cpu[name]) for name in calls}


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def sample(wall: Sequence[float], cpu: Sequence[float]) -> Sample:
    """The median of some runs, with their spread."""
    return Sample(len(wall), statistics.median(wall), min(wall), max(wall), statistics.median(cpu))
