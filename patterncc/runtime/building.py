"""Temporary folders beside a target in a user's folder. The next process that writes the target removes those that
killed processes left.

.<name>-<8 characters>/    lock, held while its maker lives; new, what is made; old, what it takes the place of
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from patterncc.runtime.lock import locked

LOCK, NEW, OLD = "lock", "new", "old"
PATIENCE_S = 3600  # for a folder without a lock: one is made an instant after the folder


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, removed at the end. First, folders that killed writers of `target` left are
    removed."""
    sweep(target)
    room = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        with locked(room / LOCK):
            yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def sweep(target: Path) -> None:
    """Remove the temporary folders of writers of `target` that no longer run. Where such a writer had moved the earlier
    `target` away and not yet put a new one in its place, the earlier one is moved back."""
    names = re.compile(re.escape(f".{target.name}-") + "[a-z0-9_]{8}")
    for left in sorted(path for path in target.parent.iterdir() if names.fullmatch(path.name)):
        with suppress(OSError):
            if left.is_symlink() or not left.is_dir() or {path.name for path in left.iterdir()} - {LOCK, NEW, OLD}:
                continue  # somebody else's
            if not (left / LOCK).exists():
                if time.time() - left.stat().st_mtime > PATIENCE_S:
                    _remove(left, target)
                continue
            with locked(left / LOCK, wait=False):
                _remove(left, target)


def _remove(left: Path, target: Path) -> None:
    if (left / OLD).is_dir() and not os.path.lexists(target):
        (left / OLD).rename(target)
    shutil.rmtree(left, ignore_errors=True)
