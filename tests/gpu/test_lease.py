"""Steps within a limit: what overruns is ended with all that it started, and leaves what it has printed."""

from __future__ import annotations

import doctest
import os
import signal
import time
from pathlib import Path

import pytest

from tests.gpu import events, lease, together
from tests.gpu.lease import Step

MODULES = {
    "good": "import sys\nprint('well', *sys.argv[1:])\n",
    "bad": "raise SystemExit(3)\n",
    "crashing": "import os\nos.abort()\n",
    # ignores that it is asked to end, and has started a process in a session of its own
    "stubborn": "import pathlib, signal, subprocess, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print('begun', started.pid, flush=True)\ntime.sleep(600)\n",
    "willing": "import time\nprint('begun', flush=True)\ntry:\n    time.sleep(600)\n"
    "finally:\n    print('saved', flush=True)\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(lease, "FOLDER", tmp_path)
    monkeypatch.setattr(lease, "ENDS_S", 1.0)
    monkeypatch.setattr(lease, "LEAST_S", 1.0)
    return tmp_path


def run(folder: Path, seconds: float, **steps: tuple[float, float, tuple[str, ...]]) -> int:
    chosen = {name: Step(1, command, (), usual, most) for name, (usual, most, command) in steps.items()}
    return lease.run(chosen, folder, seconds, dict(os.environ), toy=False)


def test_each_step_says_how_it_ended(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(folder, 60, a=(5, 9, ("good", "{}")), b=(5, 9, ("bad",)), c=(5, 9, ("crashing",)), d=(5, 9, ("good",)))
    said = capsys.readouterr().out
    assert code == 128 + 6 and (folder / "a.txt").read_text() == "well 8\n"  # a second for ending
    assert said.startswith("a: about 5 s\n") and "together about 20 s, 60 s at most" in said
    assert [line.split(",")[0] for line in said.splitlines()[-4:]] == [
        "a: exit code 0",
        "b: exit code 3",
        "c: exit code 134",
        "d: exit code 0",
    ]


def test_what_overruns_is_ended_and_the_next_step_comes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the processes that it started; one that heeds that it is asked to end still writes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    begin = time.monotonic()
    try:
        code = run(folder, 30, a=(2, 2, ("stubborn",)), b=(2, 2, ("willing",)), c=(5, 9, ("good",)))
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert code == lease.LATE and time.monotonic() - begin < 20
    _, pid = (folder / "a.txt").read_text().split()
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    assert (folder / "b.txt").read_text().startswith("begun\nsaved\n") and "well" in (folder / "c.txt").read_text()
    assert "a: exit code 124, for its time was over" in capsys.readouterr().out


def test_what_there_is_no_time_for_is_not_begun(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, 2.5, a=(2, 2, ("willing",)), b=(5, 9, ("good",))) == lease.LATE
    assert "b: not begun, " in capsys.readouterr().out and not (folder / "b.txt").exists()


def test_two_calls_and_two_starts_are_within_fifteen_minutes(tmp_path: Path) -> None:
    """A start is a minute and a half; a step takes what it usually does at least; and OUT has eight files at most."""
    steps = lease.steps(tmp_path)
    assert sum(lease.CALLS.values()) + 2 * 90 <= 15 * 60 and max(lease.CALLS.values()) < 10 * 60
    for call, seconds in lease.CALLS.items():
        own = {name: step for name, step in steps.items() if step.call == call}
        assert sum(step.usual for step in own.values()) <= seconds
        pages = 3  # gpu.json, gpu.md and gpu.png; the second call has an archive too
        assert len(own) + pages + (call == 2) <= 8


@pytest.mark.parametrize("module", [lease, together, events])
def test_examples_in_docstrings(module: object) -> None:
    assert not doctest.testmod(module).failed  # type: ignore[arg-type]
