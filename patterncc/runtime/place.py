"""The folder in which this user's cache lies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from patterncc.errors import UsageError


def folder_of_user() -> Path:
    """`$PATTERNCC_CACHE_DIR`, else where this system keeps caches; UsageError where neither is known."""
    given = os.environ.get("PATTERNCC_CACHE_DIR")
    try:
        return Path(given).absolute() if given else _default()
    except OSError as error:  # the working folder was removed
        message = f"PATTERNCC_CACHE_DIR is {given!r}, and the working folder that it starts from is gone"
        raise UsageError(message, "give the whole path") from error
    except RuntimeError as error:
        message = "no folder for the cache: HOME is not set, and this user has no home folder"
        raise UsageError(message, "set PATTERNCC_CACHE_DIR to a folder") from error


def _default() -> Path:
    """Where this system keeps caches; RuntimeError for a user without a home."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "patterncc" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "patterncc"
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "patterncc"
