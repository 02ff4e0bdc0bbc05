"""The manual says what happens: every console block of cli.md runs, in order, in one folder with one cache.

`$ COMMAND` is run, and what follows is what it prints, stdout and stderr as they come. `…` stands for anything within a
line, a line of it for any lines. Columns may be wider than shown. A command must end with 0, unless `$ echo $?` asks. A
`yaml` block that begins with a file's name as a comment is that file.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from patterncc import cli

MANUAL = Path(__file__).parent.parent / "cli.md"
BLOCK = re.compile(r"(?:<!-- (slow) -->\n)?```(console|yaml)\n(.*?)```\n", flags=re.DOTALL)


def blocks(text: str) -> list[tuple[bool, str, str]]:
    """(slow, language, text) of each block that is run or written."""
    return [(bool(found[1]), found[2], found[3]) for found in BLOCK.finditer(text)]


def commands(block: str) -> list[tuple[str, str]]:
    """(command, what it prints)."""
    parts = re.split(r"^\$ ((?:.*\\\n)*.*)\n", block, flags=re.MULTILINE)
    assert parts[0] == "", f"output without a command: {parts[0]!r}"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def call(command: str) -> tuple[str, int]:
    """What a command prints, and its exit code; `patterncc` alone runs in this process."""
    words = shlex.split(command)
    if words[0] == "patterncc" and not set("|>&") & set(command):
        with redirect_stdout(io.StringIO()) as printed, redirect_stderr(printed):
            code = cli.main(words[1:])
        return printed.getvalue(), code
    script = (
        f'patterncc() {{ "{sys.executable}" -m patterncc "$@"; }}; python() {{ "{sys.executable}" "$@"; }}; {command}'
    )
    environment = os.environ | {"PYTHONPATH": str(MANUAL.parent)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout, done.returncode


def fits(expected: str, printed: str) -> bool:
    """Whether the text is what the manual shows.

    >>> fits("a  …\\n", "a   1.5\\n"), fits("a\\n…\\nz\\n", "a\\nb\\nc\\nz\\n"), fits("a\\n", "b\\n")
    (True, True, False)
    """
    lines = [re.sub(r" +", " ", line).strip() for line in expected.rstrip("\n").split("\n")]
    pattern = "".join(
        r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n" for line in lines
    )
    text = "\n".join(re.sub(r" +", " ", line).strip() for line in printed.rstrip("\n").split("\n")) + "\n"
    return re.fullmatch(pattern, text) is not None


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_manual(slow: bool, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    wrong: list[str] = []
    for is_slow, language, text in blocks(MANUAL.read_text(encoding="utf-8")):
        if language == "yaml" and (name := re.match(r"# (\w+\.yaml)\n", text)):
            Path(name[1]).write_text(text)
        elif language == "console" and (slow or not is_slow):
            code = 0
            for command, expected in commands(text):
                if command == "echo $?":
                    assert expected.strip() == str(code), f"exit code {code}, not {expected}"
                    code = 0
                    continue
                assert code == 0, f"exit code {code}, before: {command}"
                printed, code = call(command)
                wrong += [] if fits(expected, printed) else [f"$ {command}\n{printed}"]
            assert code == 0, f"exit code {code}: {text}"
    assert not wrong, "\n".join(["the manual shows something else for:", *wrong])


def test_the_manual_has_every_command() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    for command in re.findall(r"^  ([a-z]+)  ", Path(cli.HELP).read_text().split("Commands:")[1], flags=re.MULTILINE):
        assert f"$ patterncc {command}" in text, command


def test_the_runner_would_see_a_wrong_manual() -> None:
    assert not fits("demo\n  rows  …\n", "demo\n  kv  holds\n")
    assert commands("$ a \\\n  b\nout\n$ c\n") == [("a \\\n  b", "out\n"), ("c", "")]
