"""One holder at a time among threads and processes; a killed one lets go; no lock where the system has none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from patterncc.runtime import lock
from patterncc.runtime.lock import locked

HOLDER = """
import sys
from pathlib import Path
from patterncc.runtime.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def free(path: Path) -> bool:
    try:
        with locked(path, wait=False):
            return True
    except OSError:
        return False


def test_threads_take_turns(path: Path) -> None:
    seen: list[str] = []

    def second() -> None:
        with locked(path):
            seen.append("second")

    with locked(path):
        assert not free_in_a_thread(path)
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        seen.append("first")
    thread.join(5)
    assert seen == ["first", "second"] and free(path)


def free_in_a_thread(path: Path) -> bool:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(free(path)))
    thread.start()
    thread.join(5)
    return found[0]


@pytest.mark.parametrize("end", ["ends", "is killed"])
def test_another_process_holds_it_while_it_lives(path: Path, end: str) -> None:
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert not free(path)
        if end == "is killed":
            holder.kill()
        holder.communicate()
    assert free(path) and path.exists()


def test_an_error_within_lets_go(path: Path) -> None:
    with pytest.raises(ValueError, match="within"), locked(path):
        raise ValueError("within")
    assert free(path)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_the_file_is_its_owners_and_stays_as_it_was(path: Path) -> None:
    with locked(path):
        pass
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_bytes() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="of flock")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK], ids=errno.errorcode.get)
@pytest.mark.parametrize("wait", [True, False])
def test_where_the_system_has_no_locks_nothing_stands_for_one(
    path: Path, number: int, wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose being there is the lock would keep everybody out once its maker is killed."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError) as raised, locked(path, wait=wait):
        raise AssertionError("held")
    assert raised.value.errno == number


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
def test_a_disk_that_does_not_take_the_file(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(file: object, *more: object, **options: object) -> int:
        if str(file) == str(path):
            raise OSError(number, os.strerror(number), file)
        return opened(file, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError) as raised, locked(path):
        raise AssertionError("held")
    assert raised.value.errno == number


def test_who_waits_long_says_so(path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    with locked(path):
        pass
    assert capfd.readouterr().err == ""
    held = threading.Event()

    def hold() -> None:
        with locked(path):
            held.set()
            time.sleep(0.3)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    with locked(path):
        other.join()
    assert capfd.readouterr().err == f"patterncc: waiting for another process, which holds {path}\n"
