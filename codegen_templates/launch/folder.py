"""The user's cache, where measured configurations and the CPU path's library are kept: where it is, and its locks.

The locks are those of the operating system, which patterncc takes too, by the library filelock. A package does not use
that library: versions before 3.30 remove the file while others wait for it, and any version may be installed.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """`$PATTERNCC_CACHE_DIR`, else patterncc's folder where this system keeps caches; FileNotFoundError without a home,
    and for a part of a path in a working folder that was removed."""
    if given := os.environ.get("PATTERNCC_CACHE_DIR"):
        return Path(given).absolute()
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "HOME is not set, and this user has no home folder", "~")
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "patterncc" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "patterncc"
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else home / ".cache") / "patterncc"


@contextmanager
def locked(place: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file, created if need be, or of a folder; the system releases it when this process dies.

    Raises OSError where it cannot be opened or the system has no lock for it and, with `wait=False`, where somebody
    holds it. On Windows nothing is locked.
    """
    flags = os.O_RDONLY if place.is_dir() else os.O_RDWR | os.O_CREAT
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(place, flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)
