"""What lies in a folder of the cache under the cache's own names: all that is ever listed or removed there."""

from __future__ import annotations

import re
from pathlib import Path

from patterncc.errors import UsageError, reason


def named(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """The entries of a folder whose whole names match, sorted; none where there is no such folder.

    Raises UsageError when the system refuses to list the folder.
    """
    try:
        return sorted(path for path in folder.iterdir() if names.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def unreadable(folder: Path, error: OSError) -> UsageError:
    """The error to raise when the system refuses a folder of the cache."""
    return UsageError(
        f"cannot read the cache, {folder}: {reason(error)}",
        "set PATTERNCC_CACHE_DIR to a folder that you may read and write",
    )
