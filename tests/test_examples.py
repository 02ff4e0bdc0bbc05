"""The examples run as their first lines say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_a_context_is_split_over_four_ranks() -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "4",
        str(EXAMPLES / "split_context.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    several, one, gap = map(float, re.findall(r"(?:ranks|one|gradient) ([\d.e-]+\d)", done.stdout)[:3])
    assert several == pytest.approx(one, rel=1e-5) and gap < 1e-3  # float32 sums over 1000 tokens, gradients near 100
    sent, gathered = (int(number.replace(",", "")) for number in re.findall(r"([\d,]{7,})", done.stdout)[-2:])
    assert sent < 0.2 * gathered


def test_the_needle_example_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "needle"), "--setting", "toy", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "| covered | 100.0% |" in (tmp_path / "needle_toy.md").read_text()
