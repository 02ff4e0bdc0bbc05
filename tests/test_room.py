"""A run of the tests leaves nothing in the folder for temporary files, and clears up after those that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import room

ROOT = Path(__file__).parent.parent
INNER = """
import subprocess, sys, tempfile
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_leaves(n, tmp_path):
    tempfile.mkdtemp(prefix="left-")
    subprocess.run([sys.executable, "-c", "import tempfile; tempfile.mkdtemp(prefix='left-')"], check=True)
    assert {holds}
"""


def run(tmp_path: Path, *options: str, holds: bool = True) -> list[str]:
    """What a run of two tests that leave folders has left in a new folder for temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    (tmp_path / "test_inner.py").write_text(INNER.format(holds=holds))
    inner = [str(tmp_path / "test_inner.py"), "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PATTERNCC_TESTS", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", *inner, *options],
        cwd=ROOT, env=own | {"TMPDIR": str(temporary)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == (0 if holds else 1), done.stdout + done.stderr
    return sorted(file.name for file in temporary.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="TMPDIR is POSIX")
@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])
def test_nothing_is_left(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert run(tmp_path, *options) == []


@pytest.mark.skipif(os.name != "posix", reason="TMPDIR is POSIX")
def test_a_failed_run_keeps_its_files_until_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (left,) = run(tmp_path, holds=False)
    assert left.startswith(room.PREFIX)
    temporary = tmp_path / "temporary"
    found = [file.name for file in (temporary / left).iterdir()]
    assert len([name for name in found if name.startswith("left-")]) == 4
    room.sweep(temporary)
    assert (temporary / left).exists()  # too young: its run might be about to hold it
    os.utime(temporary / left / room.HELD, (0, 0))
    with room.FileLock(temporary / left / room.HELD):
        room.sweep(temporary)
    assert (temporary / left).exists()  # its run goes on
    os.utime(temporary / left / room.HELD, (0, 0))
    room.sweep(temporary)
    assert list(temporary.iterdir()) == []
