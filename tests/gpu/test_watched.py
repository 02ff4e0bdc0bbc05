"""Tests in several processes: what hangs, crashes or loses the GPU's context costs itself, and is named."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.gpu import together
from tests.gpu.watched import Ended, Watched

ROOT = Path(__file__).parents[2]
CONFTEST = f"""\
import os, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.gpu.conftest import pytest_collection_modifyitems, pytest_configure
"""
TESTS = """\
import os, signal, time
import pytest, torch

def test_before(): pass
def test_that_fails(): assert 1 == 2, "one is not two"
def test_that_hangs(): time.sleep(600)
def test_after_a_hang(): pass
def test_that_crashes(): os.kill(os.getpid(), signal.SIGSEGV)
def test_after_a_crash(): pass

def test_that_loses_the_context(monkeypatch):
    torch.cuda.is_initialized = lambda: True
    torch.cuda.memory_reserved = lambda: 0
    def lost(): raise RuntimeError("CUDA error: an illegal memory access was encountered")
    torch.cuda.synchronize = lost

def test_after_it(): pytest.skip("of no use here")
"""


def run(folder: Path, text: str, seconds: float, patience: float, processes: int = 1) -> tuple[list[Ended], list[str]]:
    """How the tests ended, and which have not."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_all.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_all.py"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    found = [
        Watched(command, folder, environment | {together.SHARE: f"{n} of {processes}"}, folder / str(n), patience)
        for n in range(processes)
    ]
    try:
        ended = list(together.watch(found, time.perf_counter() + seconds))
    finally:
        for each in found:
            each.end()
    return ended, [test for each in found for test in each.left]


def test_each_fault_costs_one_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended, left = run(tmp_path, TESTS, 300, 4.0)
    outcomes = {each.test.split("::")[-1]: each.outcome for each in ended}
    assert outcomes == {
        "test_before": "passed",
        "test_that_fails": "failed",
        "test_that_hangs": "hung",
        "test_after_a_hang": "passed",
        "test_that_crashes": "crashed",
        "test_after_a_crash": "passed",
        "test_that_loses_the_context": "failed",
        "test_after_it": "skipped",
    }
    assert left == [] and len(ended) == 8
    texts = {each.test.split("::")[-1]: each.text for each in ended}
    assert "one is not two" in texts["test_that_fails"] and "illegal memory" in texts["test_that_loses_the_context"]
    assert "-11" in texts["test_that_crashes"] and texts["test_after_it"].endswith("of no use here")
    said = capsys.readouterr().out
    assert "HUNG test_all.py::test_that_hangs after 4 s" in said and "FAILED test_all.py::test_that_fails" in said
    assert together.summary(ended) == "2 failed, 1 hung, 1 crashed, 3 passed, 1 skipped"
    assert list(together.closing(ended, left))[-4:] == [
        f"{outcomes[name].upper()} test_all.py::{name}"
        for name in ("test_that_fails", "test_that_hangs", "test_that_crashes", "test_that_loses_the_context")
    ]


def test_what_cannot_be_collected_is_said_once(tmp_path: Path) -> None:
    [ended], left = run(tmp_path, "import nothing_of_that_name\n", 300, 30)
    assert ended.outcome == "crashed" and "nothing_of_that_name" in ended.text and left == []


@pytest.mark.slow
def test_when_time_is_over_what_is_left_is_named(tmp_path: Path) -> None:
    """And what has ended before has its outcome."""
    text = "import time\ndef test_a(): pass\ndef test_b(): time.sleep(600)\ndef test_c(): pass\n"
    begin = time.monotonic()
    ended, left = run(tmp_path, text, 25, 300)
    assert time.monotonic() - begin < 40
    assert [each.test for each in ended] == ["test_all.py::test_a"]
    assert left == ["test_all.py::test_b", "test_all.py::test_c"]


@pytest.mark.slow
def test_the_exit_code_says_what_was_wrong(tmp_path: Path) -> None:
    """Of the program itself: none of the tests it is told to take."""
    command = [sys.executable, "-m", "tests.gpu.together", "-n", "1", "--", "-m", "interpret", "-k", "nothing_has_it"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == together.NONE and done.stdout.startswith("no tests ran in "), done.stdout
