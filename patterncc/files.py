"""Files that are replaced whole, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from patterncc.errors import UsageError, quote, reason


def replace(path: Path, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Write a file beside its place and rename it there; into a device or a pipe, write as it is. `content` is the
    file's, or writes it. Raises UsageError where it cannot be written."""
    part = path.parent / f".patterncc-{os.getpid()}"
    try:
        is_file = not path.exists() or stat.S_ISREG(path.stat().st_mode)
        with open(part if is_file else path, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        if is_file:
            os.replace(part, path.resolve() if path.is_symlink() else path)
    except BrokenPipeError:
        raise
    except OSError as error:
        missing = None if path.parent.exists() else f"there is no folder {quote(str(path.parent), 200)}"
        raise UsageError(f"cannot write {path}: {reason(error)}", missing) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)  # where it was not renamed: refused, or interrupted
