"""The real engine with the Triton kernels in it, in the interpreter. The other cases: `python3 run.py vllm`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_kernels_serve_in_the_interpreter() -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed; `python3 run.py vllm` makes an environment with it")
    command = [sys.executable, "-m", "tests.integrations.vllm", "interpret"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
