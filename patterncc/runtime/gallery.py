"""The patterns that patterncc ships, and the file that an argument PATTERN refers to: a path, or a shipped name."""

from __future__ import annotations

import os
from pathlib import Path

from patterncc.errors import UsageError, did_you_mean, quote

PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE / "patterns", PACKAGE.parent / "patterns")  # in a wheel, in a checkout


def shipped() -> dict[str, Path]:
    """The shipped patterns by name, sorted."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(pattern: str | os.PathLike[str]) -> Path:
    """The file of a pattern; UsageError when there is none, with what may have been meant."""
    text = os.fspath(pattern)
    known = shipped()
    if text in known:
        return known[text]
    path = Path(text)
    if is_path(text):
        return path
    if path.is_dir():
        raise UsageError(f"{quote(text)} is a folder; a pattern is a YAML file", "name the file in it")
    meant = did_you_mean(text, known)
    raise UsageError(
        f"{quote(text)} is neither a file nor the name of a shipped pattern",
        f"did you mean {meant}?" if meant else "`patterncc list` shows the shipped ones",
    )


def is_path(text: str) -> bool:
    """Whether this is meant as a path: it looks like one, or something is there."""
    looks = any(s in text for s in (os.sep, os.altsep or os.sep)) or text.endswith((".yaml", ".yml"))
    return looks or (os.path.exists(text) and not os.path.isdir(text))
