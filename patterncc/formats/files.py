"""Files that are replaced whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from patterncc.errors import UsageError, quote


def replace(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it there; raises UsageError where it cannot be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"{quote(str(path))} cannot be written: {error.strerror}") from None
