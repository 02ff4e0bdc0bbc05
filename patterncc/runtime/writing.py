"""How the cache is written: under its lock, in a temporary folder first, and closed to everyone but its owner."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from patterncc.errors import UsageError, reason
from patterncc.runtime.listing import named
from patterncc.runtime.lock import locked
from patterncc.runtime.notes import Note
from patterncc.runtime.trust import check_trust, make_private

WRITING = "patterncc-writing-"  # and eight characters: a temporary folder


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Hold the lock over the cache's folders; what the system refuses becomes a UsageError."""
    try:
        make_folder(root, root)
        with locked(root / "lock"):
            make_folder(root, root / "packages")
            yield
    except OSError as error:
        raise UsageError(
            f"cannot write to the cache {root}: {reason(error)}",
            "set PATTERNCC_CACHE_DIR to a folder that takes it, or free some space with `patterncc cache clear`",
        ) from error


@contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """A temporary folder. The lock is held, so whatever else lies there was left by a process that died."""
    make_folder(root, root / "tmp")
    for left in named(root / "tmp", re.compile(WRITING + "[a-z0-9_]{8}")):
        shutil.rmtree(left, ignore_errors=True)  # which follows no link
    folder = Path(tempfile.mkdtemp(dir=root / "tmp", prefix=WRITING))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_notes(root: Path, notes: Mapping[tuple[str, str], Note]) -> None:
    """Write notes, given by (folder, name), each in the place of an earlier one."""
    with writing(root), temporary_folder(root) as folder:
        for (place, name), note in notes.items():
            make_folder(root, root / place)
            (folder / name).write_bytes(note.write())
            (folder / name).chmod(0o600)
            os.replace(folder / name, root / place / name)


def close_to_others(folder: Path) -> None:
    """Take the write permission of group and others from the folder and all in it, whatever the umask was."""
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)


def make_folder(root: Path, folder: Path) -> None:
    """Create the folder for its owner alone; one that others could have written is refused."""
    make_private(folder)
    check_trust(root, folder)
