#!/usr/bin/env python3
"""Set up this checkout and do one thing with it. Needs Python 3.10 or newer and its standard library.

    python3 run.py demo     compile a pattern, prove its promises, run attention on it, check it against dense attention
    python3 run.py test     the tests

The first call makes a virtual environment in .venv and installs into it; later calls start at once. Everything after
the task's name is passed on: `python3 run.py test tests/language -x`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYTHON = Path("Scripts/python.exe" if os.name == "nt" else "bin/python")  # in a virtual environment


@dataclass(frozen=True)
class Task:
    about: str
    extra: str  # of pyproject.toml; empty: what a user of patterncc installs
    commands: tuple[tuple[str, ...], ...]  # run by the environment's Python, as `python ARGUMENTS`
    default: tuple[str, ...] = ()  # arguments where none are given; all commands get the same
    folder: str = ".venv"  # the virtual environment
    more: str = ""  # a script that installs what pip cannot be told in one line, run by the environment's Python


WORKERS = str(min(os.cpu_count() or 1, 8))
PYTEST = ("-m", "pytest", "-q", "-n", WORKERS)

TASKS = {
    "demo": Task("compile, prove, run and check a pattern", "", (("examples/demo.py",),)),
    "test": Task("the tests: two cores, no GPU", "test,peers,types", (PYTEST,)),
    "slow": Task("the exhaustive tests", "test", ((*PYTEST, "-m", "slow"),)),
    "gpu": Task("the tests that need a GPU", "test", (("-m", "tests.gpu.together"),)),
    "compiled": Task(
        "what kernels use on GPUs that are not here, under both versions of Triton",
        "test",
        (("-m", "tests.codegen.both_tritons"),),
    ),
    "peers": Task("only the comparisons with other libraries", "test,peers", ((*PYTEST, "-m", "peers"),)),
    "transformers-oldest": Task(
        "the adapter of transformers under the oldest version that it takes",
        "test,transformers-oldest",
        (("-m", "pytest", "-q", "tests/integrations/transformers"),),
        folder=".venv-transformers-oldest",
    ),
    "megatron": Task(
        "Megatron-core on CPU ranks under a pattern: tensor and context parallelism, packed sequences",
        "test,megatron",
        (("-m", "pytest", "-q", "tests/integrations/megatron"),),
    ),
    "bench": Task("the benchmarks that need no GPU", "bench", (("-m", "benchmarks", "cpu"),)),
    "bench-gpu": Task(
        "the benchmarks of the GPU that is here",
        "bench",
        (("-m", "benchmarks", "prepare"), ("-m", "benchmarks", "gpu")),
    ),
    "gpu-packages": Task(
        "a folder for a machine with a GPU and no network: its tests and its benchmarks",
        "",
        (("-m", "tests.gpu.prepare"), ("-m", "benchmarks", "prepare")),
        ("build/gpu",),
    ),
    "needle": Task("train a small model under four patterns, count the needles", "bench", (("examples/needle",),)),
    "vllm": Task(
        "the real vLLM engine on the CPU: the same tokens, fewer pages",
        "test",
        (("-m", "tests.integrations.vllm"),),
        folder=".venv-vllm",
        more="tests/integrations/vllm/install.py",
    ),
    "docs": Task("the documentation as a site, in build/site", "docs", (("-m", "mkdocs", "build"),)),
    "lint": Task("ruff: style and format", "dev", (("-m", "ruff", "check"), ("-m", "ruff", "format", "--check"))),
    "types": Task("basedpyright, strict", "types", (("-m", "basedpyright"),)),
    "setup": Task("the environment with everything a contributor needs", "dev", ()),
}


def main(arguments: list[str]) -> int:
    """Run the task that the first argument names; the exit code of its first command that fails, else 0."""
    if not arguments or arguments[0] not in TASKS:
        width = max(map(len, TASKS))
        listing = "\n".join(f"    {name:{width}}  {task.about}" for name, task in TASKS.items())
        print(f"usage: python3 run.py TASK [ARGUMENTS]\n\n{listing}", file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    task = TASKS[arguments[0]]
    python = install(task)
    for command in task.commands:
        code = subprocess.call([str(python), *command, *(arguments[1:] or task.default)], cwd=ROOT)
        if code:
            return code
    return 0


def install(task: Task) -> Path:
    """The Python of the task's environment, in which this checkout is installed, editable, with the packages of the
    task's extra. What is there stays: only what the extra needs beside it is fetched, and nothing the second time."""
    folder = ROOT / task.folder
    python = folder / PYTHON
    base, own = (folder / f"installed-{name}" for name in ("base", task.extra.replace(",", "-") or "base"))
    facts, script = digest("pyproject.toml", "constraints.txt"), digest(task.more) if task.more else ""
    if says(base, facts) and says(own, facts + script):
        return python
    if not python.exists():
        print(f"making a virtual environment in {folder.name}", file=sys.stderr)
        if subprocess.call([sys.executable, "-m", "venv", str(folder)]):
            sys.exit("run.py: this Python cannot make virtual environments (Debian, Ubuntu: install python3-venv)")
    extra = f"[{task.extra}]" if task.extra else ""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command = [*pip, "--constraint", "constraints.txt"]
    if says(base, facts):  # by its name pip takes the checkout as installed, and looks for what the extra adds
        print(f"installing what patterncc{extra} needs and {folder.name} has not", file=sys.stderr)
        command.append(f"patterncc{extra}")
    else:
        print(f"installing .{extra} with constraints.txt; the first time this fetches torch, 200 MB", file=sys.stderr)
        command += ["--editable", f".{extra}"]
    if all(subprocess.call(command, cwd=ROOT) for _ in range(2)):  # networks fail now and then
        sys.exit("run.py: pip could not install patterncc and what it needs")
    if task.more and subprocess.call([str(python), task.more], cwd=ROOT):
        sys.exit(f"run.py: {task.more} could not install what the task needs")
    base.write_text(facts)
    own.write_text(facts + script)
    return python


def digest(*names: str) -> str:
    """A hash of these files."""
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in names)).hexdigest()


def says(stamp: Path, text: str) -> bool:
    """Whether a file is there and holds this text."""
    return stamp.exists() and stamp.read_text() == text


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036, pyproject.toml cannot say it to a Python that has not read it
        sys.exit("run.py: patterncc needs Python 3.10 or newer; this is " + sys.version.split()[0])
    sys.exit(main(sys.argv[1:]))
