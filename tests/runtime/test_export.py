"""Copies of packages: an earlier one is replaced, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patterncc.errors import UsageError
from patterncc.runtime.cache import Cache, CacheWarning
from patterncc.runtime.export import export
from patterncc.runtime.lock import locked
from tests.runtime.packages import ROOT, package


@pytest.fixture
def cache(fresh_cache: Path) -> Cache:
    return Cache.of_user()


def test_an_export_replaces_an_earlier_one_and_nothing_else(cache: Cache, tmp_path: Path) -> None:
    entry, target = cache.store(package()), tmp_path / "out"
    assert export(entry, target) == target / "demo"
    changed = cache.store(package(size=2))
    export(changed, target)
    assert (target / "demo" / "table_0.bin").stat().st_size == 2 and [p.name for p in target.iterdir()] == ["demo"]
    (target / "demo" / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="is no package of patterncc"):
        export(entry, target)
    assert (target / "demo" / "table_0.bin").stat().st_size == 2


@pytest.mark.parametrize("edit", ["changed", "added", "removed"])
def test_an_edited_copy_is_not_replaced_unless_that_is_asked_for(cache: Cache, tmp_path: Path, edit: str) -> None:
    entry = cache.store(package())
    export(entry, tmp_path)
    (tmp_path / "demo" / "__pycache__").mkdir()
    copy = export(entry, tmp_path)  # negative control: bytecode is no edit
    if edit == "removed":
        (copy / "table_0.bin").unlink()
    else:
        (copy / {"changed": "__init__.py", "added": "notes.txt"}[edit]).write_text("mine")
    mine = files(copy)
    with pytest.raises(UsageError, match=r"was edited since patterncc wrote it: (__init__|notes|table_0)") as told:
        export(entry, tmp_path)
    assert "--force" in told.value.render()
    assert files(copy) == mine
    export(entry, tmp_path, force=True)
    assert files(copy) == dict(entry.contents)


def files(folder: Path) -> dict[str, bytes]:
    """By path, all that lies in a folder and in its folders."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_folders_of_a_copy_can_be_read_by_who_may_read_its_place(cache: Cache, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    copy = export(cache.store(package()), tmp_path)
    assert {path.stat().st_mode & 0o777 for path in (copy, copy / "inner", copy / "inner" / "c")} == {0o755}


EXPORTER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from patterncc.runtime import export
from patterncc.runtime.cache import Cache
from patterncc.runtime.lock import locked
from tests.runtime.packages import ROOT, package

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[3] == "writing":
    export.write_files = killed
else:
    rename = Path.rename
    Path.rename = lambda path, to: killed() if path.name == "new" and to.name == "demo" else rename(path, to)
entry = Cache(Path(sys.argv[2]) / "of the killed").store(package(size=2))
export.export(entry, Path(sys.argv[2]) / "out")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such kill")
@pytest.mark.parametrize("when", ["writing", "between"])
def test_what_a_killed_export_left_is_swept_by_the_next(cache: Cache, tmp_path: Path, when: str) -> None:
    target, entry = tmp_path / "out", cache.store(package())
    export(entry, target)
    for _ in range(2):
        program = EXPORTER.replace("size=2", "size=1000") if when == "writing" else EXPORTER
        done = subprocess.run([sys.executable, "-c", program, ROOT, str(tmp_path), when], capture_output=True)
        if when == "writing":
            assert done.returncode == -9
    left = [path.name for path in target.iterdir() if path.name != "demo"]
    assert len(left) in (1, 2) and all(name.startswith(".demo-") for name in left)
    assert when == "writing" or not (target / "demo").exists()
    export(entry, target)
    assert [path.name for path in target.iterdir()] == ["demo"] and files(target / "demo") == dict(entry.contents)


def test_what_others_have_there_is_not_swept(cache: Cache, tmp_path: Path) -> None:
    """Neither what a living process makes, nor a folder of such a name with something else in it, nor a link."""
    entry = cache.store(package())
    for name, inner in (("a1b2c3d4", "notes.txt"), ("00000000", "new/x.py"), ("11111111", "lock")):
        file = tmp_path / f".demo-{name}" / inner
        file.parent.mkdir(parents=True)
        file.write_text("precious")
    (tmp_path / ".demo-22222222").symlink_to(tmp_path / ".demo-a1b2c3d4")
    (tmp_path / ".demo-other-file").mkdir()
    with locked(tmp_path / ".demo-11111111" / "lock"):
        export(entry, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == [
            ".demo-00000000",
            ".demo-11111111",
            ".demo-22222222",
            ".demo-a1b2c3d4",
            ".demo-other-file",
        ]
    os.utime(tmp_path / ".demo-00000000", (0, 0))  # old, and without a lock
    export(entry, tmp_path)
    assert not (tmp_path / ".demo-00000000").exists() and not (tmp_path / ".demo-11111111").exists()
    assert (tmp_path / ".demo-a1b2c3d4" / "notes.txt").read_text() == "precious"


def test_a_copy_that_hides_a_module_of_python_says_so(cache: Cache, tmp_path: Path) -> None:
    with pytest.warns(CacheWarning, match="hides Python's own module 'random'"):
        export(cache.store(package("random")), tmp_path)
