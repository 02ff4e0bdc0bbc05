"""What a machine with a GPU needs for the gpu suite, made on one without: packages, binaries, and the suite."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.gpu.cases import ANCESTOR, CASES, CHANGED, TOY
from benchmarks.gpu.changes import VARIANTS
from benchmarks.patterns import written


def prepare(folder: Path, *, arch: str, toy: bool = False) -> None:
    """Every case in `folder`/packages, one with binaries for `arch` in `folder`/shipped, and beside them this suite.

    There `python -m benchmarks gpu` runs it. Binaries are taken only by the version of Triton that made them.
    """
    import patterncc

    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for case in (TOY,) if toy else (*CASES.values(), *CHANGED.values(), TOY):
            patterncc.compile(written(case.text, Path(name)), output=packages, plan=case.plan, force=True)
            if case.name in CHANGED:
                VARIANTS[case.name].change(packages / case.module)
            print(case.module, file=sys.stderr)
        if not toy:
            print(f"{ANCESTOR.module}, with binaries for {arch}", file=sys.stderr)
            shipped = written(ANCESTOR.text, Path(name))
            patterncc.compile(shipped, output=folder / "shipped", binaries=(arch,), dtype="bf16", force=True)
    here = Path(__file__).parent
    if here != folder / here.name:
        suite = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(here, folder / here.name, ignore=suite, dirs_exist_ok=True)
        (folder / here.name / machine.WRITTEN.name).write_text(f"{machine.describe()['commit']}\n")
    print(f"{len(CASES) + len(CHANGED) + 1 if not toy else 1} packages and the suite are in {folder}.")
    print(f"On the GPU's machine: cd {folder.name} && python -m benchmarks gpu")
