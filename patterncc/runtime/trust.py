"""Whether files of the cache may be run: only files that nobody but this user and root can have written.

One rule for every read of code, and for the notes that lead to it: from the cache's root down to the file, everything
belongs to this user or to root, and neither its group nor others may write it. Where a system has no such owners, there
is no such rule.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from patterncc.errors import UsageError

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Untrusted(UsageError):
    """Another user owns a part of the cache, or could have written it."""


def check_trust(root: Path, path: Path) -> None:
    """Raise Untrusted for the first place from `root` down to `path`, which lies in it, that is not this user's alone.

    What is missing is passed: there is nothing to run.
    """
    places = [path, *path.parents]
    for place in reversed(places[: places.index(root) + 1]):
        if why := doubt(place):
            raise Untrusted(*why)


def doubt(place: Path) -> tuple[str, str] | None:
    """The reason why a file may not be run, and how to mend that; None where it may. A link is judged with its
    target."""
    if not hasattr(os, "geteuid"):
        return None
    try:
        seen = [place.lstat()]
        seen += [place.stat()] if stat.S_ISLNK(seen[0].st_mode) else []
    except OSError:
        return None
    for found in seen:
        if found.st_uid not in (os.geteuid(), 0):
            return (
                f"{place} belongs to another user ({_user(found.st_uid)}), who could make it run here",
                "remove it, or take it over with chown if you know what is in it; "
                "or set PATTERNCC_CACHE_DIR to a folder of your own",
            )
        if found.st_mode & OTHERS_WRITE and not stat.S_ISLNK(found.st_mode):
            return (
                f"{place} can be written by other users (its mode is {stat.S_IMODE(found.st_mode):o}): "
                "they could make what lies there run here",
                f"`chmod -R go-w {place}` if you know what is in it, else remove it; "
                "or set PATTERNCC_CACHE_DIR to a folder of your own",
            )
    return None


def make_private(folder: Path) -> None:
    """Create the folder for its owner alone; an empty one of this user that others can write is closed to them."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "geteuid"):
        found = folder.stat()
        if found.st_mode & OTHERS_WRITE and found.st_uid == os.geteuid() and not any(folder.iterdir()):
            folder.chmod(0o700)


def _user(number: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return f"uid {number}"
