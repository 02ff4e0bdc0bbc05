"""`python -m PACKAGE.tuning` in processes without patterncc and without a GPU, and what `patterncc tune` says of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.shell import Shell

pytest.importorskip("triton")


def test_the_parts_of_a_package_alone(patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several shapes: one refusal that names what can be run, and an interruption that ends it."""
    patterncc("compile", "gemma4", "-o", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def alone(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        script += ALONE.replace("demo", "gemma4")
        return subprocess.run([sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True)

    assert "usage: python -m gemma4.tuning" in alone("", "--help").stdout
    done = alone("")
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("tuning needs a GPU") == 1
    assert "`python -m gemma4.tuning`" in done.stderr and "gemma4_h" not in done.stderr
    done = alone(INTERRUPTED)
    assert (done.returncode, done.stdout) == (130, "") and done.stderr.count("interrupted") == 1, done.stderr


INTERRUPTED = """
import torch
def interrupt():
    raise KeyboardInterrupt
torch.cuda.is_available = interrupt
"""


def test_without_a_gpu_the_whole_package_is_named(patterncc: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """gemma4 has a package for each of its shapes in it; what is run on another machine is the whole one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    patterncc("tune", "gemma4", code=2)
    assert "`python -m gemma4.tuning`" in patterncc.err and "gemma4_h" not in patterncc.err


ALONE = """
import runpy, sys
for name in ("patterncc", "rich", "typer", "pydantic", "yaml"):
    sys.modules[name] = None
runpy.run_module("demo.tuning", run_name="__main__", alter_sys=True)
"""


def test_a_package_alone(patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m demo.tuning` where there is no patterncc: its help, and what is missing here."""
    patterncc("compile", "demo", "-o", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", ALONE, *arguments], cwd=tmp_path, capture_output=True, text=True)

    done = alone("--help")
    assert done.returncode == 0 and "python -m demo.tuning" in done.stdout, done.stderr
    done = alone()
    assert (done.returncode, done.stdout) == (2, "") and "tuning needs a GPU" in done.stderr
    assert alone("--dtype", "fp8").returncode == 2
