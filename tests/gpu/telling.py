"""What a process of tests tells of itself: a plugin of pytest that writes `events`."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.events import LOST

MUCH = 1 << 30  # bytes that a process of several may keep for its next test
LONG = 3000  # characters of a failure


class Events:
    """A plugin of pytest."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.outcome, self.seconds, self.text = "passed", 0.0, ""

    def tell(self, **event: Any) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tell(chosen=[item.nodeid for item in session.items])
        knobs = importlib.import_module("triton").knobs
        knobs.compilation.listener = lambda **_: self.tell(compiled=True)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.outcome, self.seconds, self.text = "passed", 0.0, ""
        self.tell(begun=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds += report.duration
        if report.failed or (report.skipped and self.outcome == "passed"):
            self.outcome = report.outcome
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            self.text = reason[-LONG:]

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        lost = _lost()
        if lost:
            self.outcome, self.text = "failed", f"{self.text}\nthe GPU's context is lost: {lost}".strip()
        self.tell(ended=nodeid, outcome=self.outcome, seconds=round(self.seconds, 2), text=self.text)
        if lost:
            os._exit(LOST)


def _lost() -> str:
    """Why nothing more can be asked of the GPU; "" where that is not so."""
    if not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
        if torch.cuda.memory_reserved() > MUCH:
            torch.cuda.empty_cache()
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return ""
