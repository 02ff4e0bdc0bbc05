"""The CPU path's compiled kernels in the cache. A package's `cpu/library.py` builds, names and loads them without
patterncc, which lists, checks and removes them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from patterncc.errors import reason
from patterncc.runtime.listing import named
from patterncc.runtime.trust import doubt

FOLDER = "cpu"
NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.so")


@dataclass(frozen=True)
class Library:
    """A library in the cache: `<facts>-<content>.so`."""

    path: Path

    def read(self) -> bytes:
        """Its content; ValueError saying what is wrong when that is not what was written."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ValueError(reason(error)) from error
        if why := doubt(self.path.parent) or doubt(self.path):
            raise ValueError(why[0])
        if hashlib.sha256(content).hexdigest()[:32] != self.path.stem.rpartition("-")[2]:
            raise ValueError("it was changed")
        return content


def libraries(root: Path) -> list[Library]:
    """Every library, whole or not; what bears another name is none."""
    return [Library(path) for path in named(root / FOLDER, NAME)]
