"""`python -m PACKAGE.tuning` in a process without patterncc and without a GPU, and what `patterncc tune` says of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.shell import Shell

pytest.importorskip("triton")

# Runs a module once for each [Python that is executed first, arguments], and prints [code, stdout, stderr] of each as
# JSON.
ALONE = """
import contextlib, io, json, runpy, sys
for name in ("patterncc", "rich", "typer", "pydantic", "yaml"):
    sys.modules[name] = None
_, module, runs = sys.argv
told = []
for first, arguments in json.loads(runs):
    exec(first)
    sys.argv[1:], code, out, err = arguments, 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""
INTERRUPTED = """
import torch
def interrupt():
    raise KeyboardInterrupt
torch.cuda.is_available = interrupt
"""


def alone(folder: Path, package: str, *runs: tuple[str, list[str]]) -> list[list[Any]]:
    """(code, stdout, stderr) of `python -m PACKAGE.tuning` for each (what is done first, arguments), in one process:
    importing torch takes longer than all of them."""
    command = [sys.executable, "-c", ALONE, f"{package}.tuning", json.dumps(runs)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def test_the_parts_of_a_package_alone(patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several shapes: one refusal that names what can be run, and an interruption that ends it."""
    patterncc("compile", "gemma4", "-o", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    usage, refused, interrupted = alone(tmp_path, "gemma4", ("", ["--help"]), ("", []), (INTERRUPTED, []))
    assert "usage: python -m gemma4.tuning" in usage[1]
    code, out, err = refused
    assert (code, out) == (2, "") and err.count("tuning needs a GPU") == 1
    assert "`python -m gemma4.tuning`" in err and "gemma4_h" not in err
    code, out, err = interrupted
    assert (code, out) == (130, "") and err.count("interrupted") == 1, err


def test_without_a_gpu_the_whole_package_is_named(patterncc: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """gemma4 has a package for each of its shapes in it; what is run on another machine is the whole one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    patterncc("tune", "gemma4", code=2)
    assert "`python -m gemma4.tuning`" in patterncc.err and "gemma4_h" not in patterncc.err


def test_a_package_alone(patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m demo.tuning` where there is no patterncc: its help, and what is missing here."""
    patterncc("compile", "demo", "-o", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    usage, refused, wrong = alone(tmp_path, "demo", ("", ["--help"]), ("", []), ("", ["--dtype", "fp8"]))
    assert usage[0] == 0 and "python -m demo.tuning" in usage[1], usage
    assert refused[:2] == [2, ""] and "tuning needs a GPU" in refused[2]
    assert wrong[0] == 2
