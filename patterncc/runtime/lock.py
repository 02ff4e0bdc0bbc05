"""A lock between processes that the system releases when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.01  # between two looks of who waits


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock on `path`, a file that is created if need be and stays; waits while another process or thread holds
    it.

    Raises OSError where the system has no lock for it (a file whose being there is the lock would outlive its maker)
    and, with `wait=False`, where somebody holds it.
    """
    from filelock import FileLock  # here, for the command line starts without it

    timeout = -1 if wait else 0
    with FileLock(path, timeout, mode=0o600, poll_interval=POLL_S, fallback_to_soft=False):
        yield
