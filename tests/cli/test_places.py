"""Where a command reads, writes and draws: files where folders are needed, folders where files are, pipes, no width."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patterncc.runtime.gallery import shipped
from tests.cli.shell import ROOT, Shell


@pytest.mark.parametrize(
    "command",
    [
        "compile demo -o FILE",
        "compile demo -o FILE/further",
        "export demo --to torch -n 99 -o FILE",
        "table demo -n 99 -o FILE/t.npz",
        "show demo -o FILE/d.svg",
        "verify rows demo --junit FILE/j.xml",
        "compile FILE/a.yaml",
    ],
)
def test_a_file_in_the_place_of_a_folder(patterncc: Shell, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("mine")
    patterncc(*command.replace("FILE", str(tmp_path / "file")).split(), code=2)
    assert "a file stands where a folder is needed" in patterncc.err and str(tmp_path / "file") in patterncc.err
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.glob("file*"))) == 1


def test_a_file_in_the_place_of_the_cache(patterncc: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path / "file"))
    assert patterncc("compile", "demo", code=2) == "" and "a file stands where a folder is needed" in patterncc.err


def test_a_folder_in_the_place_of_a_pattern(patterncc: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (".", "mine"):
        patterncc("compile", name, code=2)
        assert f"`{name}` is a folder; a pattern is a YAML file" in patterncc.err
    patterncc("verify", "rows", f"{tmp_path}/mine", code=2)
    assert "cannot be read: is a directory" in patterncc.err
    (tmp_path / "demo").mkdir()  # what `compile demo -o .` leaves: the shipped pattern is meant all the same
    patterncc("verify", "rows", "demo")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pattern_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    script = f"cat {shipped()['demo']} > pipe & {sys.executable} -m patterncc verify rows pipe"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("columns", ["0", "1", "7"])
def test_a_terminal_without_a_width_gets_the_usual_one(
    patterncc: Shell, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    commands = (["demo"], ["gemma3", "--overview"], ["demo", "bigbird"])
    monkeypatch.setenv("COLUMNS", "80")
    usual = [patterncc("show", *arguments) for arguments in commands]
    monkeypatch.setenv("COLUMNS", columns)
    assert usual == [patterncc("show", *arguments) for arguments in commands]
