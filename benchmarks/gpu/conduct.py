"""Has the parts measured by other processes within a budget of time, and hands on every figure as it comes.

One process measures all that is timed, as long as it lives: a cell that hangs or crashes costs itself, and the next
process goes on behind it, without the kernels that hung. This one needs neither torch nor a GPU.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.cells import PARTS, Cell, cells, in_turn

Row = dict[str, Any]
Timed = tuple[str, Cell]  # with its part
TOY = {"toy": "A toy run in Triton's interpreter: it shows that the suite runs, and its times mean nothing."}
PATIENCE_S = 90.0  # for a process to begin; and for a cell that compiles, beyond three times what it needs
COMPILED_S = 20.0  # the same of a cell whose kernels are compiled: after that it hangs
DIES_S = 10.0  # of a process that was killed
SILENT_S = 40.0  # between two kernels that a cell of ours compiles; peers compile without a word
STARTS_S, COMPILES_S = 8.0, 12.0  # usual: of a process; of its kernels, as on an H100's host
CACHES = "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"
AT_ONCE = "compiling"  # the part whose cells do not disturb each other: they measure the compiler, not the GPU


def run(
    folder: Path, *, toy: bool, seconds: float, only: Sequence[str] = (), select: str = "", caches: Path | None = None
) -> Iterator[tuple[str, Row]]:
    """(part, row) as they are measured, ("machine", what it is) when that is known, and ("plan", how long all will
    take). `caches`: a folder for what is compiled; else nothing is found compiled that this run did not compile."""
    with tempfile.TemporaryDirectory() as fresh:
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment |= {name: os.path.join(caches or fresh, name) for name in CACHES}
        if toy:
            environment["TRITON_INTERPRET"] = "1"
        begin = time.time()
        conductor = _Conductor(folder, toy, begin + seconds, environment)
        compiles = not only or AT_ONCE in only
        compiled = cells(AT_ONCE, toy=toy, select=select) if compiles else ()
        timed = in_turn(only or PARTS, toy=toy, select=select)
        yield "plan", {"plan": plan(compiled, timed, seconds)}
        if compiles:
            yield from conductor.at_once(compiled, begin + seconds / 2)
            yield "plan", {"plan": plan((), timed, conductor.until - time.time())}
        patience = COMPILED_S if compiles and not toy else PATIENCE_S
        yield from conductor.one_by_one(timed, conductor.until, patience)


def plan(compiled: Sequence[Cell], timed: Sequence[Timed], seconds: float, cores: int | None = None) -> str:
    """How long all will take as reckoned, and what will stay empty.

    >>> some = [("host", Cell(f"cell {n}", 10, {})) for n in range(5)]
    >>> plan([Cell("x", 0, {})] * 17, some, 80, cores=16)
    '17 processes compile, about 40 s; 5 cells are timed, about 58 s; 80 s are left: not reached will be cell 3, cell 4'
    >>> plan([], some[:1], 80, cores=16)
    '1 cell is timed, about 18 s; 80 s are left'
    """
    waves = -(-len(compiled) // (cores or os.cpu_count() or 1))
    compiling = waves * (STARTS_S + COMPILES_S)
    said = f"{len(compiled)} processes compile, about {compiling:.0f} s; " if compiled else ""
    needed, late = compiling + STARTS_S, list[str]()
    for _, cell in timed:
        if needed + cell.needs_s > seconds:
            late.append(cell.name)
        needed += cell.needs_s
    many = f"{len(timed)} cells are" if len(timed) != 1 else "1 cell is"
    said += f"{many} timed, about {needed - compiling:.0f} s; {seconds:.0f} s are left"
    return f"{said}: not reached will be {', '.join(late)}" if late else said


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
    avoid: set[str] = field(default_factory=set[str])  # steps that hung, or ended their process

    def at_once(self, chosen: Sequence[Cell], until: float) -> Iterator[tuple[str, Row]]:
        """All rows of the cells, a process for each. What is not compiled when half of the time is over is compiled
        where it is timed."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            each = [[(AT_ONCE, cell)] for cell in chosen]
            for rows in pool.map(lambda one: list(self.one_by_one(one, until, _silence(one[0][1]))), each):
                yield from rows

    def one_by_one(self, chosen: Sequence[Timed], until: float, patience: float) -> Iterator[tuple[str, Row]]:
        """Rows of some cells, from as many processes as it takes: each that crashes costs the cell it was in."""
        left = list(chosen)
        while left:
            if time.time() >= until:
                yield from _empty(left, "not measured: the time was over")
                return
            begun, doing, finished, allowed = "", "", 0, PATIENCE_S
            process = self._start(left, until)
            timer = _watched(process, PATIENCE_S, until)
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
                        allowed = patience + 3 * next(cell.needs_s for _, cell in left if cell.name == begun)
                        timer = _watched(process, allowed, until)
                    elif "compiled" in event:
                        timer.cancel()
                        timer = _watched(process, allowed, until)
                    elif "doing" in event:
                        doing = event["doing"]
                    elif "row" in event:
                        row = event["row"]
                        yield next(part for part, cell in chosen if cell.name == row["cell"]), row
                        if "note" in row:  # it says why; whether the process then goes on does not matter
                            left = [known for known in left if known[1].name != row["cell"]]
                    else:
                        left = [known for known in left if known[1].name != event["done"]]
                        finished += 1
            finally:
                timer.cancel()
                _end(process)
                with suppress(subprocess.TimeoutExpired):  # one that the driver does not let go is left behind
                    process.wait(DIES_S)
                code = process.poll()
            self.avoid.update({doing} - {""})
            if time.time() >= until:
                continue
            if left and not finished and not begun:
                yield from _empty(left, f"not measured: the process ended with {code} before it began")
                return
            if left and left[0][1].name == begun:
                during = f": {doing}" if doing else ""
                yield from _empty(left[:1], f"the process ended with {code} while it was measured{during}")
                left = left[1:]

    def _start(self, chosen: Sequence[Timed], until: float) -> subprocess.Popen[str]:
        given = {
            "folder": str(self.folder),
            "chosen": [(part, cell.name) for part, cell in chosen],
            "until": until,
            "toy": self.toy,
            "avoid": sorted(self.avoid),
        }
        command = [sys.executable, "-m", "benchmarks.gpu.child", json.dumps(given)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )


def _silence(cell: Cell) -> float:
    """How long a cell that compiles may go without a word."""
    return PATIENCE_S if "peer" in cell.given else SILENT_S


def _watched(process: subprocess.Popen[str], seconds: float, until: float) -> threading.Timer:
    """A started timer that kills the process after `seconds`, or at the time `until` if that is earlier."""
    timer = threading.Timer(max(min(seconds, until - time.time()), 0), _end, [process])
    timer.start()
    return timer


def _empty(cells: Sequence[Timed], note: str) -> Iterator[tuple[str, Row]]:
    for part, cell in cells:
        yield part, {"cell": cell.name, **cell.given, "note": note}


def _end(process: subprocess.Popen[str]) -> None:
    """The process, and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
