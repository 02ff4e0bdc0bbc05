"""The command line as a user calls it: in a process of its own, in a clean environment."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "patterncc", *arguments], capture_output=True, text=True)


def patterncc_text(*arguments: str) -> str:
    """What a command that must succeed prints for people."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def patterncc_json(*arguments: str) -> Any:
    """The one JSON document that a command prints with --json."""
    return json.loads(patterncc_text(*arguments, "--json"))
