"""A process of tests that is watched: one that hangs or crashes costs the test it was in, and the next process goes on
behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.gpu.events import EVENTS, LOST, told

START_S = 90.0  # until the first test begins
# of a test that waits for processes of its own
OTHERS_S = {"test_the_program": 100.0, "test_first_calls_compile_nothing": 100.0}
DIES_S = 10.0  # a killed process that is not gone by then is left behind


@dataclass(frozen=True)
class Ended:
    """How a test ended: passed, failed, skipped, hung or crashed."""

    test: str
    outcome: str
    seconds: float
    text: str = ""


class Watched:
    """Its share of the tests, by one process after the other."""

    def __init__(
        self, command: Sequence[str], place: Path, environment: Mapping[str, str], files: Path, patience: float
    ) -> None:
        """`files`: a path; with two endings, what it tells and what it prints. `patience`: seconds without an event."""
        self.command, self.place, self.patience = command, place, patience
        self.events, self.said = files.with_suffix(".events"), files.with_suffix(".txt")
        self.environment = {**environment, EVENTS: str(self.events)}
        self.heard, self.seen = time.monotonic(), 0
        self.open, self.since = "", self.heard  # the test that is going on
        self.left: list[str] = []
        self.over = False
        self.process = self._start()

    def look(self) -> Iterator[Ended]:
        """What has ended since the last look. A process that went without a word of its own is replaced."""
        if self.over:
            return
        code = self.process.poll()  # before its events are read: none comes after
        yield from self._new()
        if code is None:
            silent = time.monotonic() - self.heard
            if silent > self._patience():
                self.end()
                yield self._cut("hung", f"it was ended: nothing had happened for {silent:.0f} s")
        elif self.open:
            yield self._cut("crashed", f"its process ended with {code}")
        elif code == LOST:
            self._replace()
        else:
            self.over = True
            if code not in (0, 1, 5):  # passed, failed, none chosen: as pytest says
                yield Ended(f"the tests of process {self.said.stem}", "crashed", 0.0, self._tail())

    def end(self) -> None:
        """The process, and those that it started, are killed."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(DIES_S)

    def _start(self) -> subprocess.Popen[bytes]:
        self.heard = time.monotonic()
        with self.said.open("ab") as said:
            return subprocess.Popen(
                self.command, cwd=self.place, env=self.environment, stdout=said, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def _new(self) -> Iterator[Ended]:
        events = told(self.events)
        for event in events[self.seen :]:
            self.heard = time.monotonic()
            if "chosen" in event:
                self.left = event["chosen"]
            elif "begun" in event:
                self.open, self.since = event["begun"], self.heard
            elif "ended" in event:
                self.open = ""
                self.left = [test for test in self.left if test != event["ended"]]
                yield Ended(event["ended"], event["outcome"], event["seconds"], event["text"])
        self.seen = len(events)

    def _patience(self) -> float:
        if not self.open:
            return max(START_S, self.patience)
        return max(self.patience, OTHERS_S.get(self.open.split("::")[-1].split("[")[0], 0.0))

    def _cut(self, outcome: str, why: str) -> Ended:
        """The test that was going on; where there was none, no other process is started."""
        test, seconds = self.open or f"the start of process {self.said.stem}", time.monotonic() - self.since
        self.left = [each for each in self.left if each != test]
        if self.open and self.left:
            self._replace()
        else:
            self.over = True
        self.open = ""
        return Ended(test, outcome, seconds, f"{why}\n{self._tail()}".strip())

    def _replace(self) -> None:
        if self.left:
            self.process = self._start()
        else:
            self.over = True

    def _tail(self) -> str:
        return self.said.read_text(errors="replace")[-1500:]
