"""Console blocks of Markdown: the commands in them, what one prints when it is run, and whether that is what is shown.

`$ COMMAND` is run, and what follows is what it prints, stdout and stderr as they come. `…` stands for anything within a
line; a line of it, or of `...`, for any lines. Columns may be wider than shown, and times beside verdicts differ.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from patterncc import cli

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(?:<!-- (slow) -->\n)?^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, its text, the line where it begins, and whether it is marked slow."""

    language: str
    text: str
    line: int
    is_slow: bool

    @property
    def file(self) -> str:
        """The name of the YAML file that it is, by the comment in its first line; "" if it is none."""
        found = re.match(r"# (\w+\.yaml)\n", self.text) if self.language == "yaml" else None
        return found[1] if found else ""


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[2], found[3], text[: found.start(2)].count("\n") + 1, bool(found[1]))
        for found in BLOCK.finditer(text)
    ]


def commands(block: str) -> list[tuple[str, str]]:
    """Each command of a console block, and what it prints there."""
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
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout, done.returncode


def fits(shown: str, printed: str) -> bool:
    """Whether what is printed is what is shown.

    >>> fits("a  …\\n", "a   1.5\\n"), fits("a\\n…\\nz\\n", "a\\nb\\nc\\nz\\n"), fits("a\\n", "b\\n")
    (True, True, False)
    >>> fits("x  fails  1.3  b\\n...\\nc\\n", "x  fails  22.4  b\\ny\\nc\\n"), fits("a\\n...\\nb\\n", "a\\nc\\n")
    (True, False)
    """
    lines = normal(shown).split("\n")
    pattern = "".join(
        r"(?:.*\n)*" if line in ("…", "...") else ".*".join(map(re.escape, line.split("…"))) + r"\n" for line in lines
    )
    return re.fullmatch(pattern, normal(printed) + "\n") is not None


def normal(text: str) -> str:
    """Lines without the width of columns, and without how long a proof took."""
    lines = [re.sub(r" +", " ", line).strip() for line in text.rstrip("\n").split("\n")]
    return "\n".join(re.sub(r"\b(holds|fails) [0-9.]+", r"\1 #", line) for line in lines)
