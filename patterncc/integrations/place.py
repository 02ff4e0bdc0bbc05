"""The line of a pattern file that states something, for messages that refuse a model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType


def place(package: ModuleType, key: str) -> str:
    """Where the pattern file says `key`: " (line 4: heads: 32)"; empty where it does not."""
    try:
        manifest = json.loads((Path(package.__file__ or "").parent / "manifest.json").read_text(encoding="utf-8"))
        lines = str(manifest["source"]).splitlines()
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    for number, line in enumerate(lines, 1):
        if re.match(rf"""["']?{key}["']?\s*:""", line):
            return f" (line {number}: {line.split('#')[0].strip()})"
    return ""
