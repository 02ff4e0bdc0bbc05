"""Fixtures of the command's tests: a shell, and pattern files with something wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from patterncc.runtime.gallery import shipped
from tests.cli.shell import Shell


@pytest.fixture
def patterncc(capsys: pytest.CaptureFixture[str], fresh_cache: Path) -> Shell:
    return Shell(capsys)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(shipped()["phi3_small"].read_text().replace("stride: 8", "stride: 16"))
    return path


@pytest.fixture
def mistaken(tmp_path: Path) -> Path:
    path = tmp_path / "mistaken.yaml"
    path.write_text("pattern: 1\nname: mistaken\nhead: 4\nblock: 60\n")
    return path
