"""The manual says what happens: every console block of cli.md runs, in order, in one folder with one cache.

A command must end with 0, unless `$ echo $?` asks. A `yaml` block that begins with a file's name as a comment is that
file. How output is compared, `tests/console.py` says.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patterncc import cli
from tests.console import Block, blocks, call, commands, fits

MANUAL = Path(__file__).parent.parent / "cli.md"
BLOCKS = blocks(MANUAL)


class Reader:
    """Follows the manual in one folder: blocks are done once, in order, before the first that needs them."""

    def __init__(self) -> None:
        self.wrong: dict[int, list[str]] = {}  # of each block that has been done

    def upto(self, last: int) -> list[str]:
        """What the manual says wrongly in block `last`. Those before it are done; slow ones for another slow one."""
        for n, block in enumerate(BLOCKS[: last + 1]):
            if n not in self.wrong and (not block.is_slow or BLOCKS[last].is_slow):
                self.wrong[n] = done(block)
        return self.wrong[last]


def done(block: Block) -> list[str]:
    """Write the file that a block is, or run its commands; what is not as it says."""
    if block.file:
        Path(block.file).write_text(block.text)
    wrong, code, command = [], 0, ""
    for command, shown in commands(block.text) if block.language == "console" else ():
        if command == "echo $?":
            wrong += [] if shown.strip() == str(code) else [f"exit code {code}, not {shown}"]
            code = 0
            continue
        wrong += [f"exit code {code}, before: {command}"] if code else []
        printed, code = call(command)
        wrong += [] if fits(shown, printed) else [f"$ {command}\n{printed}"]
    return [*wrong, f"exit code {code}: {command}"] if code else wrong


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manual")


def title(block: Block) -> str:
    return f"line {block.line}: {block.text.splitlines()[0].removeprefix('$ ')[:60]}"


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, id=title(block), marks=[pytest.mark.slow] if block.is_slow else [])
        for n, block in enumerate(BLOCKS)
        if block.language == "console"
    ],
)
def test_a_block(number: int, reader: Reader, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(place / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    wrong = reader.upto(number)
    assert not wrong, "\n".join(["the manual shows something else for:", *wrong])


def test_the_manual_has_every_command() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    for command in re.findall(r"^  ([a-z]+)  ", Path(cli.HELP).read_text().split("Commands:")[1], flags=re.MULTILINE):
        assert f"$ patterncc {command}" in text, command


def test_the_runner_would_see_a_wrong_manual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not fits("demo\n  rows  …\n", "demo\n  kv  holds\n")
    assert commands("$ a \\\n  b\nout\n$ c\n") == [("a \\\n  b", "out\n"), ("c", "")]
    assert done(Block("console", "$ echo a\na\n$ false\n$ echo $?\n1\n", 1, False)) == []
    assert done(Block("console", "$ echo a\nb\n", 1, False)) == ["$ echo a\na\n"]
    assert done(Block("console", "$ false\n", 1, False)) == ["exit code 1: false"]
    assert len(done(Block("console", "$ false\n$ true\n$ false\n$ echo $?\n2\n", 1, False))) == 2
    assert len(BLOCKS) > 20
