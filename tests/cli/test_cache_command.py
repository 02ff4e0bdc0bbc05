"""`cache`, and what commands do where the cache cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from patterncc.runtime.cache import Cache
from tests.cli.shell import Shell


def test_the_cache(patterncc: Shell) -> None:
    assert patterncc("cache", "ls") == "" and "0 packages in" in patterncc.err
    path = Path(patterncc.json("compile", "demo")["path"])
    patterncc("compile", "ranges")
    assert [entry["name"] for entry in patterncc.json("cache", "ls")] == ["demo", "ranges"]
    assert "2 of 2 packages are whole" in patterncc("cache", "verify")
    (path / "api/ops.py").write_text("")
    assert "ops.py was changed" in patterncc("cache", "verify", code=1) and "damaged" in patterncc("cache", "ls")
    patterncc("compile", "demo")
    assert "warning: " in patterncc.err and "is built again" in patterncc.err
    assert patterncc("cache", "verify") == "2 of 2 packages are whole\n"
    assert patterncc("cache", "clear", "demo") == "removed 1 package\n"
    assert [entry["name"] for entry in patterncc.json("cache", "clear")] == ["ranges"]
    assert Cache.of_user().entries() == []


@pytest.mark.parametrize("name", ["", "-", "?", "../..", "class", "naïve", "☃", "nothere"])
def test_a_name_that_no_package_has_clears_none(patterncc: Shell, name: str) -> None:
    patterncc("compile", "demo")
    assert patterncc("cache", "clear", name) == "removed 0 packages\n"
    assert [entry.name for entry in Cache.of_user().entries()] == ["demo"]
    assert Cache.of_user().latest("demo") is not None


def test_a_cache_beside_a_folder_that_is_gone(
    patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", "cache")
    patterncc("compile", "demo", code=2)
    assert "PATTERNCC_CACHE_DIR is 'cache', and the working folder that it starts from is gone" in patterncc.err


def test_a_cache_that_cannot_be_written(patterncc: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path / "file"))
    patterncc("compile", "demo", code=2)
    assert "cannot write to the cache" in patterncc.err and "PATTERNCC_CACHE_DIR" in patterncc.err


@pytest.mark.parametrize("command", ["ls", "verify", "clear", "clear demo", "ls --json"])
def test_a_cache_that_the_system_refuses_is_no_fault(
    patterncc: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path / ("x" * 300)))
    assert patterncc("cache", *command.split(), code=2) == ""
    assert "cannot read the cache" in patterncc.err and "PATTERNCC_CACHE_DIR" in patterncc.err
