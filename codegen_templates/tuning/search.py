"""The search for a direction's best configuration: every candidate is checked, then timed; the best are timed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..checks.values import counted
from ..launch import tuned
from ..launch.configs import Config
from ..launch.folder import cache_folder
from .trials import Results, Shape, Trial, error

FINALISTS, ROUNDS = 3, 2
NOISE = 0.01  # who is faster than the table by less is not


class TuningError(RuntimeError):
    """Nothing can be measured: why, and what to do."""

    def __init__(self, message: str, help: str) -> None:
        super().__init__(message)
        self.help = help


class WrongResult(Exception):
    """A candidate's results are not those of dense attention."""


@dataclass(frozen=True)
class Step:
    """A candidate is done: its seconds, or why it has none."""

    direction: str
    number: int
    count: int
    config: Config
    outcome: float | str

    def __str__(self) -> str:
        outcome = self.outcome if isinstance(self.outcome, str) else milliseconds(self.outcome)
        return f"{self.direction} {self.number}/{self.count}: {words(self.config)}: {outcome}"


@dataclass(frozen=True)
class Tuned:
    """The outcome of a direction; seconds are the sum over the layers of the kinds that were measured."""

    direction: str
    config: Config
    seconds: float
    table: Config
    table_seconds: float | None  # None where it does not work
    measured: int
    skipped: dict[str, int]  # candidates without a time, by reason
    path: Path

    def __str__(self) -> str:
        if self.config == self.table:
            against = "as in the table"
        elif self.table_seconds is None:
            against = f"table: {words(self.table)}, which does not work here"
        else:
            against = f"table: {words(self.table)}: {milliseconds(self.table_seconds)}"
        skipped = "".join(f", {count} {why}" for why, count in self.skipped.items())
        took = f"{words(self.config)}: {milliseconds(self.seconds)} ({against})"
        return f"{self.direction}: {took}; {self.measured} measured{skipped}"


@dataclass(frozen=True)
class Search:
    """The search in one direction."""

    direction: str
    shape: Shape
    trials: list[Trial]
    clock: Callable[[Callable[[], object]], float]
    standard: dict[int, Results] = field(default_factory=dict)  # by trial, at the length measured

    def run(self, table: Config, candidates: Iterable[Config], tell: Callable[[Step], None]) -> Tuned:
        """Try the package's own configuration and all others, and store what is best."""
        seconds: dict[Config, float] = {}
        skipped: Counter[str] = Counter()

        def attempt(config: Config, number: int, in_full: bool = False) -> None:
            outcome = self.attempt(config, in_full)
            if isinstance(outcome, str):
                seconds.pop(config, None)
                skipped[outcome] += 1
            else:
                seconds[config] = min(outcome, seconds.get(config, outcome))
            tell(Step(self.direction, number, count, config, outcome))

        configs = list(dict.fromkeys([table, *candidates]))
        count = len(configs) + min(1 + FINALISTS, len(configs)) * ROUNDS  # at most
        for number, config in enumerate(configs, 1):
            attempt(config, number)
        finalists = list(dict.fromkeys([*sorted(seconds, key=seconds.__getitem__)[:FINALISTS], table]))
        for number, config in enumerate(finalists * ROUNDS, len(configs) + 1):
            if config in seconds:
                attempt(config, number, in_full=number <= len(configs) + len(finalists))
        best = min((c for c in finalists if c in seconds), key=seconds.__getitem__, default=None)
        if best is None:
            reasons = ", ".join(f"{n} {why}" for why, n in skipped.items())
            raise TuningError(f"{self.direction}: no configuration works: {reasons}", "please report this")
        if table in seconds and seconds[table] <= seconds[best] * (1 + NOISE):
            best = table
        times = {"seconds": seconds[best], "table_seconds": seconds.get(table)}
        place = {"length": self.shape.length, "batch": self.shape.batch}
        try:
            path = tuned.store(self.direction, self.shape.empty(), best, times | place)
        except OSError as problem:
            message = f"cannot write to the cache {cache_folder()}: {problem.strerror or problem}"
            raise TuningError(message, "set PATTERNCC_CACHE_DIR to a folder that takes it") from problem
        return Tuned(
            self.direction, best, **times, table=table, measured=len(seconds), skipped=dict(skipped), path=path
        )

    def attempt(self, config: Config, in_full: bool = False) -> float | str:
        """The seconds that a configuration takes, or the reason why it cannot be used. `in_full`: also check the other
        launches that would use it."""
        try:
            with tuned.trying(self.direction, config):
                return self._seconds(in_full)
        except torch.OutOfMemoryError as problem:
            raise out_of_memory(self.shape) from problem
        except Exception as problem:  # whatever a compiler, a driver and a kernel may say
            why = reason(problem)
        try:
            self.shape.empty().fill_(0).sum().item()
        except RuntimeError as problem:
            message = f"the GPU does not answer any more after {self.direction} with {words(config)}"
            raise TuningError(
                message, "results of earlier directions are stored; start again for the others"
            ) from problem
        return why

    def _seconds(self, in_full: bool) -> float:
        for trial in self.trials:
            for call, exact in trial.rest if in_full else (trial.first,):
                if not error(call(), exact) <= self.shape.tolerance:
                    raise WrongResult
        for number, trial in enumerate(self.trials):
            result = trial.timed()
            if not error(result, self.standard.setdefault(number, result)) <= 2 * self.shape.tolerance:
                raise WrongResult
        return sum(trial.layers * self.clock(trial.timed) for trial in self.trials)


def reason(problem: Exception) -> str:
    """Why a candidate failed, as the end of a sentence that counts them: `3 take too much shared memory`."""
    if isinstance(problem, WrongResult):
        return "compute wrongly"
    if type(problem).__name__ == "OutOfResources":
        return f"take too much {getattr(problem, 'name', 'of the GPU')}"
    message = (str(problem).strip().splitlines() or [""])[-1]  # compilers say last what is wrong
    return f"fail with {type(problem).__name__}{f': {message[:100]}' if message else ''}"


def out_of_memory(shape: Shape) -> TuningError:
    message = f"{counted(shape.length, 'token')} in a batch of {shape.batch} find no room on this GPU"
    return TuningError(message, "take a smaller --length or --batch")


def words(config: Config) -> str:
    return f"{config.rows} rows, {config.keys} keys, {counted(config.warps, 'warp')}, {counted(config.stages, 'stage')}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"
