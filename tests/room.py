"""The folder for all temporary files of a run of the tests: its own, those of its workers and of what they start.

It goes when the run ends well. What a run left that failed or was killed, the next run removes.
"""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX, HELD = "patterncc-tests-", "held"  # of the folder; the lock in it, which dies with the process of the run
SOON_S = 60  # between making a folder and holding it


def take_room() -> Callable[[bool], None]:
    """A function that ends the run: whether all went well decides whether its folder is removed. Until then
    `tempfile` makes everything in the folder, in this process and in those that it starts."""
    outside = Path(tempfile.gettempdir())
    sweep(outside)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    held = FileLock(folder / HELD)
    held.acquire()
    with suppress(KeyError, OSError):  # a user without a name
        # A cache that torch keeps for later processes, where it would keep it.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(outside / f"torchinductor_{getpass.getuser()}"))
    before = {name: os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")}
    os.environ |= dict.fromkeys(before, str(folder))
    tempfile.tempdir = None  # asks the environment anew

    def end(went_well: bool) -> None:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        tempfile.tempdir = None
        held.release()
        if went_well:
            shutil.rmtree(folder, ignore_errors=True)

    return end


def sweep(outside: Path) -> None:
    """Remove the folders of runs that are over."""
    for left in outside.glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):  # of another user, or of a run that goes on
            if time.time() - (left / HELD).stat().st_mtime > SOON_S:
                with FileLock(left / HELD, blocking=False):
                    shutil.rmtree(left, ignore_errors=True)
