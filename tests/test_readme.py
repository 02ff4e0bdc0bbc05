"""What the README shows is what happens: its files are written, its commands run, its Python executed, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(yaml|console|python)\n(.*?)^```$", README, re.M | re.S)


def run(command: str, folder: Path) -> str:
    """What a command prints, whatever its exit code."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "COLUMNS": "200"}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def matches(shown: str, printed: str) -> bool:
    """Whether they are equal, but for times and widths of columns; `...` stands for any number of lines.

    >>> matches("x  fails  1.3  b\\n...\\nc\\n", "x  fails  22.4  b\\ny\\nz\\nc\\n")
    True
    >>> matches("a\\n...\\nb\\n", "a\\nc\\n")
    False
    """
    parts = [re.escape(normal(part)) for part in re.split(r"^\.\.\.\n", shown, flags=re.M)]
    return re.fullmatch(r"(?:.*\n)*".join(parts), normal(printed)) is not None


def normal(text: str) -> str:
    return re.sub(r" +", " ", re.sub(r"(holds|fails) +[0-9.]+", r"\1 #", text))


@pytest.mark.skipif(sys.platform == "win32", reason="the README's commands are for a Unix shell")
def test_the_readme_is_true(tmp_path: Path) -> None:
    ran = 0
    for kind, text in BLOCKS:
        if kind == "yaml" and (name := re.match(r"# (\w+\.yaml)\n", text)):
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
        elif kind == "python":
            done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        elif kind == "console":
            for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.M):
                printed = run(command, tmp_path)
                assert matches(shown, printed), f"$ {command}\n{printed}"
                ran += 1
    assert ran >= 4
