"""`patterncc tune`: configurations measured on the GPU that is here, and kept where the package finds them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from importlib import import_module
from typing import Any

from patterncc.cli import output
from patterncc.cli.compile import DTYPES, one_of
from patterncc.cli.table import tokens
from patterncc.errors import UsageError, counted
from patterncc.language.ranges import ranges
from patterncc.pipeline import Compiled, compile
from patterncc.runtime.parts import parts_of

MOST_BATCH = 8191  # eight times as many decode, and a launch takes 65,535
DIRECTIONS = ("forward", "decode", "dq", "dkdv")


def run(pattern: str, dtype: str, length: str, batch: int, only: str | None, json: bool) -> int:
    """Measure one direction after the other; each is stored when it is done."""
    one_of("--dtype", dtype, DTYPES)
    count, wanted = tokens(length), directions(only)
    if not 1 <= batch <= MOST_BATCH:
        raise UsageError(f"--batch is {batch}; it takes 1 to {MOST_BATCH}")
    done = compile(pattern)
    (first, _), *_ = shapes = measuring(done)
    progress = Progress()
    results: list[tuple[tuple[int, ...], Any]] = []
    try:
        device = first.find_device(done.name)
        name = first.device_name(device)
        output.note(f"{done.name} on {name}: {dtype}, {counted(count, 'token')}, batch {batch}")
        options = {"dtype": first.DTYPES[dtype], "length": count, "batch": batch, "device": device}
        for tuning, layers in shapes:
            where = f"layers {ranges(layers)}: " if len(shapes) > 1 else ""
            for result in tuning.tune(wanted, **options, tell=progress):
                progress.end()
                results.append((layers, result))
                if not json:
                    print(f"{where}{result}\n  {result.path}", flush=True)
    except tuple(tuning.TuningError for tuning, _ in shapes) as error:
        raise UsageError(str(error), error.help) from error
    except KeyboardInterrupt:
        progress.end()
        stored = ", ".join(result.direction for _, result in results) or "nothing"
        text = f"interrupted: {stored} stored; what was not measured to its end is not"
        raise KeyboardInterrupt(text) from None
    finally:
        progress.end()
    if json:
        facts = {"name": done.name, "digest": done.digest, "device": name, "arch": first.arch(device)}
        asked = {"dtype": dtype, "length": count, "batch": batch}
        of_layers = [{"layers": list(layers)} if len(shapes) > 1 else {} for layers, _ in results]
        told = [asdict(r) | {"path": str(r.path)} | more for (_, r), more in zip(results, of_layers, strict=True)]
        output.document(facts | asked | {"results": told})
    for direction in wanted:
        if direction not in [result.direction for _, result in results]:
            output.note(f"{direction}: nothing to measure, the heads of a tile are so many that `forward` does it")
    return 0


def directions(only: str | None) -> tuple[str, ...]:
    """The directions of `--only forward,dq`; all by default.

    >>> directions("dq, forward")
    ('dq', 'forward')
    """
    if only is None:
        return DIRECTIONS
    names = tuple(dict.fromkeys(name.strip() for name in only.split(",") if name.strip()))
    for name in names or ("",):
        one_of("--only", name, DIRECTIONS)
    return names


def measuring(done: Compiled) -> list[tuple[Any, tuple[int, ...]]]:
    """The package's module that measures, and the layers that it speaks of: one for each shape that layers have."""
    try:
        return [(import_module(f"{part}.tuning.main"), layers) for part, layers in parts_of(done.load()).items()]
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "triton"):
            raise
        raise UsageError(
            f"tuning needs {error.name}, which is not installed here", f"pip install {error.name}"
        ) from error


class Progress:
    """Candidates as they are done: a bar on a terminal, else a line for each."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, step: Any) -> None:
        if not sys.stderr.isatty():
            output.note(str(step))
            return
        if self.bar is None:
            from rich import progress
            from rich.console import Console

            columns = ("{task.description}", progress.BarColumn(), progress.MofNCompleteColumn(), "{task.fields[last]}")
            console = Console(stderr=True)
            self.bar = progress.Progress(*columns, console=console, transient=True, redirect_stdout=False)
            self.bar.add_task(step.direction, total=step.count, last="")
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=step.number, last=str(step).partition(": ")[2])

    def end(self) -> None:
        """Wipe the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
