"""A machine for tests of the search: the CPU path computes, and a clock says what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from tests.package.launch.tuned import config, part

FAST, SLOW = config(16, 32, 4, 2), config(32, 16, 4, 2)
TABLE = config(64, 64, 4, 2)  # the interpreter's
CPU = torch.device("cpu")


@dataclass
class Machine:
    """A machine on which configurations take as long as is said, else two seconds."""

    text: str = "strided"
    seconds: dict[Any, float] = field(default_factory=lambda: {FAST: 1.0})
    steps: list[Any] = field(default_factory=list)

    def clock(self, call: Callable[[], object]) -> float:
        call()
        [tried] = part("launch.tuned", self.text).tried.values()
        return self.seconds.get(tried, 2.0)

    def tune(self, *directions: str, candidates: tuple[Any, ...] = (SLOW, FAST), **options: Any) -> list[Any]:
        options = {"dtype": torch.float32, "length": 45, "short": 37, "device": CPU, **options}
        tune = part("tuning.main", self.text).tune
        known = {"candidates": lambda *_: candidates, "clock": self.clock, "tell": self.steps.append}
        return list(tune(directions or part("launch.tuned").DIRECTIONS, **known, **options))

    def tried(self) -> list[Any]:
        return [step.config for step in self.steps]


def stored(direction: str = "forward", text: str = "strided") -> Any:
    return part("launch.tuned", text)._stored(direction, torch.zeros(1))


def failing(machine: Machine, monkeypatch: pytest.MonkeyPatch, errors: dict[Any, BaseException]) -> None:
    trials = part("tuning.trials", machine.text)
    true = trials.attention

    def raises(*args: Any, **options: Any) -> Any:
        for tried in part("launch.tuned", machine.text).tried.values():
            if tried in errors:
                raise errors[tried]
        return true(*args, **options)

    monkeypatch.setattr(trials, "attention", raises)
