"""Kills, full disks and two tuners at once: a stored result is whole, or is not there."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from patterncc.runtime.cache import Cache
from patterncc.runtime.lock import locked
from tests.package.launch.tuned import Q, config, store

pytest.importorskip("triton")


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """A process that runs `work`, and is killed at the end."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def rewriting(tuned: ModuleType) -> None:
    while True:
        for stages in (2, 3, 4):
            store(tuned, of=config(stages=stages))


def wholeness(path: Path, tuned: ModuleType) -> bool:
    """Whether the package takes what lies there."""
    tuned._read.clear()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        return tuned.forward(Q, 40) is not None and not seen


def killed_often(tuned: ModuleType, path: Path) -> list[bool]:
    """Whether the result is whole, after each of 25 kills."""
    chance, found = random.Random(3), []
    for _ in range(25):
        with child(lambda: rewriting(tuned)):
            time.sleep(chance.uniform(0.005, 0.03))
        found.append(wholeness(path, tuned))
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_kill_at_any_moment_leaves_a_whole_result(tuned: ModuleType, fresh_cache: Path) -> None:
    path = store(tuned)
    assert all(killed_often(tuned, path))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    Cache.of_user().store(compiled_package())  # what the killed ones left is swept
    assert list((fresh_cache / "tmp").iterdir()) == []


def compiled_package() -> Any:
    from patterncc.codegen.package import GeneratedPackage

    return GeneratedPackage("demo", "", {}, {"__init__.py": b""})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_kill_test_would_see_a_half_written_result(tuned: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: written in its place, piece by piece, it is half there at some kill."""
    path = store(tuned)

    def in_pieces(source: str, target: Path) -> None:
        with open(target, "w") as file:
            for letter in Path(source).read_text():
                file.write(letter)
                file.flush()

    monkeypatch.setattr(os, "replace", in_pieces)
    assert not all(killed_often(tuned, path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_two_tuners_at_once(tuned: ModuleType, fresh_cache: Path) -> None:
    path = store(tuned)
    with child(lambda: rewriting(tuned)), child(lambda: rewriting(tuned)):
        before, whole = path.stat().st_mtime_ns, 0
        for _ in range(100):
            whole += wholeness(path, tuned)
            time.sleep(0.002)
        assert whole == 100 and path.stat().st_mtime_ns > before


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_storing_waits_for_the_lock(tuned: ModuleType, fresh_cache: Path) -> None:
    store(tuned)
    with locked(fresh_cache / "lock"):
        thread = threading.Thread(target=lambda: store(tuned, "dq"))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and tuned.dq(Q) is None
    thread.join(5)
    assert not thread.is_alive() and tuned.dq(Q) == config()


def test_a_full_disk_leaves_what_was_there(
    tuned: ModuleType, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tuned)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        store(tuned, of=config(stages=4))
    assert tuned.forward(Q, 40) == config() and list((fresh_cache / "tmp").iterdir()) == []
