"""Results of `patterncc tune` in the cache, one file for each. A package's `tuned.py` says what is in them, and what
their names are made of: packages write and read them without patterncc, which lists, checks and removes them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patterncc.errors import reason
from patterncc.runtime.listing import named
from patterncc.runtime.trust import doubt

FOLDER = "tuned"
NAME = re.compile(r"[0-9a-f]{32}\.json")
FORMAT = 1
MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class TunedFile:
    """A result in the cache."""

    path: Path

    def read(self) -> Mapping[str, Any]:
        """What it holds; ValueError saying what is wrong when that is not what was written."""
        try:
            with self.path.open("rb") as file:
                content = json.loads(file.read(MOST_BYTES))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r} is another version's")
            told = {key: value for key, value in content.items() if key != "sha256"}
            if _digest(told) != content["sha256"] or _digest(told["facts"])[:32] != self.path.stem:
                raise ValueError("it was changed")
            if why := doubt(self.path.parent) or doubt(self.path):
                raise ValueError(why[0])
        except OSError as error:
            raise ValueError(reason(error)) from error
        except (
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
            json.JSONDecodeError,
            UnicodeDecodeError,
        ) as error:
            raise ValueError("it is no result of tuning") from error
        return told

    @property
    def name(self) -> str:
        """The pattern's name; "?" when it cannot be read."""
        try:
            return str(self.read()["name"])
        except ValueError:
            return "?"


def tuned_files(root: Path) -> list[TunedFile]:
    """Every result, whole or not, by pattern and direction; what bears another name is none."""
    found = [TunedFile(path) for path in named(root / FOLDER, NAME) if not os.path.isdir(path)]
    return sorted(found, key=lambda file: (file.name, file.path.name))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
