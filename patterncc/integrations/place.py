"""The text of a package's pattern, and the line of it that states something, for messages that refuse a model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType


def source(package: ModuleType) -> str:
    """The text of the pattern of a package; empty where its folder does not tell."""
    try:
        manifest = json.loads((Path(package.__file__ or "").parent / "manifest.json").read_text(encoding="utf-8"))
        return str(manifest["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def place(package: ModuleType, key: str) -> str:
    """Where the pattern file says `key`: " (line 4: heads: 32)"; empty where it does not."""
    for number, line in enumerate(source(package).splitlines(), 1):
        if re.match(rf"""["']?{key}["']?\s*:""", line):
            return f" (line {number}: {line.split('#')[0].strip()})"
    return ""
