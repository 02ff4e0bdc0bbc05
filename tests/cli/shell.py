"""The command line called in this process: what it prints and its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patterncc import cli

ROOT = Path(__file__).parents[2]


class Shell:
    """`patterncc` in this process, in an own cache."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """stdout; stderr is in `self.err`."""
        self.capsys.readouterr()
        got = cli.main([str(a) for a in arguments])
        out, self.err = self.capsys.readouterr()
        assert got == code, out + self.err
        return out

    def json(self, *arguments: object, code: int = 0) -> Any:
        text = self(*arguments, "--json", code=code)
        assert text.count("\n") == 1  # one document and nothing else
        return json.loads(text)
