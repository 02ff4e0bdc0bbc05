"""What a process of tests tells those that watch it: lines of JSON in the file that $PATTERNCC_GPU_EVENTS names.

    {"chosen": [tests]}     what falls to this process and none before it has begun
    {"begun": test}
    {"compiled": true}      Triton has compiled a kernel, or found it compiled: the test goes on
    {"ended": test, "outcome": "passed", "seconds": 1.5, "text": ""}

A test has ended when all that it asked of the GPU is done. One after which the GPU's context is lost is the last of its
process, which exits with LOST: every later one would fail for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EVENTS = "PATTERNCC_GPU_EVENTS"
LOST = 3  # exit code


def told(file: Path) -> list[dict[str, Any]]:
    """The events so far; a line that is not whole yet is none."""
    lines = file.read_text(errors="replace").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
