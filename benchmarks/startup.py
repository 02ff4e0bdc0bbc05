"""Start-up: what a person waits for before anything happens. Each run is a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks.timing import sample

COMMANDS = {
    "--help": ["--help"],
    "verify coverage phi3_small": ["verify", "coverage", "phi3_small"],
    "compile s2_hybrid, empty cache": ["compile", "s2_hybrid"],
    "compile s2_hybrid, second time": ["compile", "s2_hybrid"],
    "compile s2_hybrid, forced": ["compile", "s2_hybrid", "--force"],
}
COLD = "compile s2_hybrid, empty cache"
PACKAGES = ("typer", "rich", "yaml", "pydantic", "numpy", "torch", "triton")
IN_PROCESS = """
import time
import torch, triton
import patterncc
wall, cpu = time.perf_counter(), time.process_time()
patterncc.load("s2_hybrid")
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def run(runs: int = 5) -> Iterator[dict[str, object]]:
    """One row a command, and one each for a first and a second `patterncc.load` once torch is imported."""
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(folder)
        for name, arguments in COMMANDS.items():
            wall, cpu = [], []
            for turn in range(runs + 1):  # the first fills the file cache and is not counted
                if name == COLD:
                    environment = _environment(f"{folder}/{turn}")
                seconds = _process([sys.executable, "-m", "patterncc", *arguments], environment)
                if turn:
                    wall.append(seconds[0])
                    cpu.append(seconds[1])
            yield {"what": name, **sample(wall, cpu).json()}
    first, second = zip(*(_loads() for _ in range(3)), strict=True)  # importing torch takes seconds
    for name, seconds in (("load, first time", first), ("load, second time", second)):
        yield {"what": name, **sample(*zip(*seconds, strict=True)).json()}


def imports() -> Iterator[dict[str, object]]:
    """One row a command: the modules it imports, and milliseconds for all of them and for the packages among them that
    people wait for, each with what it imports itself; none where it was not imported. Profiling slows imports down."""
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in COMMANDS.items():
            yield {"what": name, **_imports(arguments, _environment(folder))}


def _loads() -> list[tuple[float, float]]:
    """Wall and CPU seconds of `patterncc.load` in a process that finds an empty cache, and in the next one."""
    with tempfile.TemporaryDirectory() as folder:
        command, environment = [sys.executable, "-c", IN_PROCESS], _environment(folder)
        printed = [subprocess.run(command, env=environment, check=True, capture_output=True, text=True) for _ in "ab"]
    return [tuple(map(float, done.stdout.split())) for done in printed]  # type: ignore[misc]


def _environment(cache: str) -> dict[str, str]:
    """With that cache, and with bytecode kept, as Python does unless told otherwise."""
    return {**os.environ, "PATTERNCC_CACHE_DIR": cache, "PYTHONDONTWRITEBYTECODE": ""}


def _imports(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-X", "importtime", "-m", "patterncc", *arguments]
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stderr.splitlines()
    fields = [line.removeprefix("import time:").split("|") for line in lines if line.startswith("import time:")]
    took = {name.strip(): (own, whole) for own, whole, name in fields[1:]}  # the first line is the heading
    every = sum(int(own) for own, _ in took.values())
    packages = {f"{name}_ms": round(int(took[name][1]) / 1e3, 1) for name in PACKAGES if name in took}
    return {"modules": len(took), "all_ms": round(every / 1e3, 1), **packages}


def _process(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process that must end well."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
