"""Runs the parts in processes of their own within a budget of time, and hands on every figure as it comes.

A part that hangs or crashes goes on with the cell after the one in which it did, and ends when the budget does. This
process needs neither torch nor a GPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.cells import PARTS, Cell, cells

Row = dict[str, Any]
TOY = {"toy": "A toy run in Triton's interpreter: it shows that the suite runs, and its times mean nothing."}
PATIENCE_S = 90.0  # for a process to begin; and for a cell, beyond three times what it needs: then it hangs
AT_ONCE = ("compiling",)  # parts whose cells do not disturb each other: they measure the compiler, not the GPU


def run(
    folder: Path, *, toy: bool, seconds: float, only: Sequence[str] = (), fast: bool = False
) -> Iterator[tuple[str, Row]]:
    """(part, row) as they are measured, and ("machine", what it is) when that is known."""
    with tempfile.TemporaryDirectory() as caches:  # nothing is found compiled that this run did not compile
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment |= {name: os.path.join(caches, name) for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")}
        if toy:
            environment["TRITON_INTERPRET"] = "1"
        conductor = _Conductor(folder, toy, time.time() + seconds, environment, fast)
        for part in PARTS:
            if not only or part in only:
                yield from conductor.part(part)


def missing() -> str | None:
    """What this machine lacks for the suite."""
    probe = "import sys, torch, triton; sys.exit(0 if torch.cuda.is_available() else 'no GPU')"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["no GPU"])[-1] if done.returncode else None


@dataclass(frozen=True)
class _Conductor:
    folder: Path
    toy: bool
    until: float
    environment: dict[str, str]
    fast: bool = False

    def part(self, part: str) -> Iterator[tuple[str, Row]]:
        """All rows of a part."""
        every = cells(part, toy=self.toy, fast=self.fast)
        if part not in AT_ONCE:
            yield from self._cells(part, every)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for rows in pool.map(lambda cell: list(self._cells(part, (cell,))), every):
                yield from rows

    def _cells(self, part: str, chosen: Sequence[Cell]) -> Iterator[tuple[str, Row]]:
        """Rows of some cells, from as many processes as it takes: each that crashes costs the cell it was in."""
        left = list(chosen)
        while left:
            if time.time() >= self.until:
                yield from self._empty(part, left, "not measured: the time was over")
                return
            begun, finished = "", 0
            process = self._start(part, left)
            timer = self._watched(process, PATIENCE_S)
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if not line.endswith("\n"):  # it was ended while it wrote
                        break
                    event = json.loads(line)
                    if "machine" in event:
                        yield "machine", event["machine"]
                    elif "begun" in event:
                        begun = event["begun"]
                        timer.cancel()
                        needs = next(cell.needs_s for cell in left if cell.name == begun)
                        timer = self._watched(process, PATIENCE_S + 3 * needs)
                    elif "row" in event:
                        yield part, event["row"]
                        if "note" in event["row"]:  # it says why; whether the process then goes on does not matter
                            left = [cell for cell in left if cell.name != event["row"]["cell"]]
                    else:
                        left = [cell for cell in left if cell.name != event["done"]]
                        finished += 1
            finally:
                timer.cancel()
                _end(process)
                code = process.wait()
            if time.time() >= self.until:
                continue
            if left and not finished and not begun:
                yield from self._empty(part, left, f"not measured: the process ended with {code} before it began")
                return
            if left and left[0].name == begun:
                yield from self._empty(part, left[:1], f"the process ended with {code} while it was measured")
                left = left[1:]

    def _start(self, part: str, chosen: Sequence[Cell]) -> subprocess.Popen[str]:
        given = {
            "part": part,
            "folder": str(self.folder),
            "names": [cell.name for cell in chosen],
            "until": self.until,
            "toy": self.toy,
        }
        command = [sys.executable, "-m", "benchmarks.gpu.child", json.dumps(given)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def _watched(self, process: subprocess.Popen[str], seconds: float) -> threading.Timer:
        """What ends the process after so many seconds, or when the budget does."""
        timer = threading.Timer(max(min(seconds, self.until - time.time()), 0), _end, [process])
        timer.start()
        return timer

    @staticmethod
    def _empty(part: str, cells: Sequence[Cell], note: str) -> Iterator[tuple[str, Row]]:
        for cell in cells:
            yield part, {"cell": cell.name, **cell.given, "note": note}


def _end(process: subprocess.Popen[str]) -> None:
    """The process, and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
