"""A lock between processes that the system releases when its holder dies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.01  # between two looks of who waits
PATIENCE_S = 3.0  # before who waits says so


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock on `path`, a file that is created if need be and stays; waits while another process or thread holds
    it, and says so on stderr when that takes long.

    Raises OSError where the system has no lock for it (a file whose being there is the lock would outlive its maker)
    and, with `wait=False`, where somebody holds it.
    """
    from filelock import FileLock, Timeout  # here, for the command line starts without it

    lock = FileLock(path, -1, mode=0o600, poll_interval=POLL_S, fallback_to_soft=False)
    try:
        lock.acquire(timeout=PATIENCE_S if wait else 0)
    except Timeout:
        if not wait:
            raise
        print(f"patterncc: waiting for another process, which holds {path}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
