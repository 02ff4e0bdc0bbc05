"""`patterncc cache` and the CPU path's compiled kernels: listed, checked and removed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.command_line import patterncc_json, patterncc_text, run


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path))
    path = tmp_path / "cpu" / f"{'a' * 32}-{hashlib.sha256(b'kernels').hexdigest()[:32]}.so"
    path.parent.mkdir()
    path.write_bytes(b"kernels")
    return path


def test_they_are_listed_and_whole(library: Path) -> None:
    assert run("cache", "ls").stderr.startswith("0 packages and the CPU kernels in ")
    assert patterncc_json("cache", "ls") == [{"path": str(library), "damage": None}]
    assert "1 of 1 library of CPU kernels is whole" in patterncc_text("cache", "verify")


def test_a_changed_one_is_damaged(library: Path) -> None:
    library.write_bytes(b"kernel")
    done = run("cache", "verify")
    assert done.returncode == 1
    assert f"CPU kernels {library.name}: it was changed" in done.stdout


def test_they_go_with_everything_and_not_with_a_pattern(library: Path) -> None:
    patterncc_text("compile", "demo")
    assert patterncc_text("cache", "clear", "demo") == "removed 1 package\n"
    assert library.exists()
    assert patterncc_text("cache", "clear") == "removed 0 packages and the CPU kernels\n"
    assert not library.exists()
