"""Times that can be compared: everything that is compared runs in alternation, in one process, and medians are kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

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
    """Run the calls in turn, A B A B …, after one that is not counted; stop after `limit_s` once two turns are done."""
    for call in calls.values():
        call()
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for turn in range(runs):
        if turn >= 2 and time.perf_counter() - begin > limit_s:
            break
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            wall_0, cpu_0 = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - wall_0)
            cpu[name].append(time.process_time() - cpu_0)
    return {name: sample(wall[name], cpu[name]) for name in calls}


def sample(wall: Sequence[float], cpu: Sequence[float]) -> Sample:
    """The median of some runs, with their spread."""
    return Sample(len(wall), statistics.median(wall), min(wall), max(wall), statistics.median(cpu))
