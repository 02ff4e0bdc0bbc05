"""A process that measures cells: python -m benchmarks.gpu.child JSON; prints a line of JSON for each event.

    {"machine": {…}}             once, first
    {"begun": "thin, 1 x 131072"}
    {"doing": "backward by gluon, head dim 128"}   a step that may hang, or "" when it is over
    {"compiled": true}           Triton has compiled a kernel, or found it compiled: it does not hang
    {"row": {…}}                 as many as the cell has; one that could not be measured says why in `note`
    {"done": "thin, 1 x 131072"}

Whatever else is printed goes to stderr.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks import machine
from benchmarks.gpu import steps
from benchmarks.gpu.cells import Cell, cells
from benchmarks.gpu.device import Device
from benchmarks.gpu.witness import WrongError

LOST = 3  # exit code: the GPU's context is lost, and every later call of this process would fail


def run(
    folder: Path, chosen: list[tuple[str, str]], until: float, *, toy: bool, **_: object
) -> Iterator[dict[str, Any]]:
    """The events of the chosen cells, (part, name) each; none begins that needs more time than is left."""
    sys.path.insert(0, str(folder / "packages"))
    device = Device(toy)
    yield {"machine": machine.describe() | device.versions()}
    known = {(part, cell.name): cell for part in {part for part, _ in chosen} for cell in cells(part, toy=toy)}
    for part, name in chosen:
        cell = known[part, name]
        left = until - time.time()
        if left < cell.needs_s:
            note = f"not measured: it needs about {cell.needs_s:.0f} s, and {max(left, 0):.0f} s of the budget are left"
            yield {"row": {"cell": cell.name, **cell.given, "note": note}}
        else:
            yield {"begun": cell.name}
            begin = time.perf_counter()
            for row in measured(device, _imported_late(part), cell, folder):
                yield {"row": row | {"cell_s": round(time.perf_counter() - begin, 2)}}
                if row.get("lost"):
                    sys.exit(LOST)
        yield {"done": cell.name}


def _imported_late(part: str) -> Any:
    """The part's module, imported when it measures: one that cannot be costs no other part anything."""
    return SimpleNamespace(
        measure=lambda *given, **more: importlib.import_module(f"benchmarks.gpu.{part}").measure(*given, **more)
    )


def measured(device: Device, module: Any, cell: Cell, folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a cell; whatever goes wrong in it is the note of a last one, and the suite goes on."""
    place = {"cell": cell.name, **cell.given}
    try:
        for row in module.measure(device, **cell.given, folder=folder):
            yield place | row | device.state()
    except WrongError as wrong:
        yield place | {"note": f"WRONG, so not timed: {wrong}", "wrong": True}
    except torch.OutOfMemoryError as error:
        yield place | {"note": f"out of memory: {_line(error)}"}
    except Exception as error:
        lost = "CUDA error" in str(error)
        yield place | {"note": f"{type(error).__name__}: {_line(error)}"} | ({"lost": True} if lost else {})
    gc.collect()
    if not device.toy:
        torch.cuda.empty_cache()


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:160]


def main() -> None:
    """Events go to what stdout was."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    given = json.loads(sys.argv[1])

    def tell(**event: Any) -> None:
        print(json.dumps(event), file=events, flush=True)

    steps.listen(lambda name: tell(doing=name), set(given.get("avoid", ())))
    knobs = importlib.import_module("triton").knobs
    knobs.compilation.listener = lambda **_: tell(compiled=True)
    for event in run(Path(given.pop("folder")), **given):
        tell(**event)


if __name__ == "__main__":
    main()
