"""What the tests of the gpu suite share: prepared packages at toy size, and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m benchmarks prepare` makes: the toy package, and the suite beside it."""
    folder = tmp_path_factory.mktemp("prepared")
    done = benchmarks("prepare", str(folder), "--toy")
    assert done.returncode == 0, done.stderr
    return folder


def benchmarks(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks` with these arguments, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)
