"""Where the cache lies: other users' folders, folders that cannot be used, and what else lies there."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from patterncc.codegen.package import GeneratedPackage
from patterncc.errors import UsageError
from patterncc.runtime import writing
from patterncc.runtime.cache import Cache
from tests.runtime.packages import package, rubbish


def test_folders_are_for_their_owner_alone(cache: Cache) -> None:
    entry = cache.store(package())
    for folder in (cache.root, cache.packages, entry.path.parent, entry.path, entry.path / "inner/c"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_a_folder_that_takes_no_writes(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = cache.store(package())
    if os.geteuid() == 0:  # root writes anywhere: let the system say no
        monkeypatch.setattr(writing, "locked", refuse)
    for folder in (cache.root, cache.packages):
        folder.chmod(0o500)
    try:
        assert cache.find(entry.digest) == entry  # reading needs no lock
        cache.remember(entry, "a" * 64)  # and a note that cannot be taken is no error
        with pytest.raises(UsageError, match="cannot write to the cache"):
            cache.store(package(size=3))
    finally:
        for folder in (cache.root, cache.packages):
            folder.chmod(0o700)


def refuse(path: Path) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


def test_a_cache_where_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to the cache"):
        Cache(tmp_path / "file").store(package())
    assert Cache(tmp_path / "file").entries() == []


def test_a_folder_of_another_user_is_refused(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(package())
    monkeypatch.setattr(os, "geteuid", lambda: 4242, raising=False)
    if cache.root.stat().st_uid == 0:
        pytest.skip("root owns this folder, which is allowed")
    with pytest.raises(UsageError, match="belongs to another user"):
        cache.store(package(size=3))


def test_a_cache_that_may_not_be_read(cache: Cache) -> None:
    """Also as root, who may read anything: a name that is too long is refused to everyone."""
    cache.root.mkdir()
    too_long = Cache(cache.root / ("x" * 300))
    for ask in (too_long.entries, too_long.tuned, too_long.libraries, too_long.clear, too_long.clear_tuned):
        with pytest.raises(UsageError, match=r"cannot read the cache, .*: file name too long"):
            ask()
    assert too_long.find("a" * 64) is None and too_long.latest("demo") is None
    with pytest.raises(UsageError, match="cannot write to the cache"):
        too_long.store(package())


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("PATTERNCC_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(UsageError, match="HOME is not set") as told:
        Cache.of_user()
    assert "PATTERNCC_CACHE_DIR" in str(told.value)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PATTERNCC_CACHE_DIR")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert Cache.of_user().root == tmp_path / "xdg" / "patterncc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says: ignore
    assert Cache.of_user().root == tmp_path / ".cache" / "patterncc"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert Cache.of_user().root == tmp_path / "Library" / "Caches" / "patterncc"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert Cache.of_user().root == tmp_path / "local" / "patterncc" / "Cache"


@pytest.mark.parametrize("file", ["../up.py", "a/../b.py", "/a.py", "a//b.py", "__pycache__/a.py", "a/manifest"])
def test_a_file_of_a_package_lies_in_it(file: str) -> None:
    with pytest.raises(ValueError, match="not a file of a package"):
        GeneratedPackage("demo", "", {}, {file: b""})


@pytest.mark.parametrize("name", ["../up", "a b", "class", "", "naïve", "a/b", "a\n"])
def test_a_name_never_reaches_a_path_unchecked(cache: Cache, name: str) -> None:
    with pytest.raises(ValueError):
        package(name)
    with pytest.raises(ValueError):
        cache.latest(name)
    with pytest.raises(ValueError):
        GeneratedPackage("demo", "", {}, {name: b""})


def foreign(root: Path) -> dict[Path, str]:
    """A user's own files in a folder that was named as the cache, where the cache keeps things of its own."""
    files = (
        "tmp/work/notes.txt",
        "tmp/patterncc-tests/notes.txt",
        "packages/app/main.py",
        "latest/notes.txt",
        "latest/third/notes.txt",
        "seen/report.csv",
        "cpu/results/run.csv",
        "cpu/mine.so",
        "tuned/model.json",
        "tuned/demo/notes.txt",
        "notes.txt",
    )
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"precious {name}")
    return {root / name: f"precious {name}" for name in files}


def test_a_folder_with_other_things_in_it_loses_none_of_them(cache: Cache) -> None:
    """PATTERNCC_CACHE_DIR may name a home, a project or `/`, whose `tmp` is the system's: only what carries the
    cache's own names is ever removed."""
    kept = foreign(cache.root)
    for folder in [cache.root, *(path for path in cache.root.rglob("*") if path.is_dir())]:
        folder.chmod(0o700)
    for made in (package(), package("other"), package(size=9)):
        cache.remember(cache.store(made), "a" * 64)
    assert [entry.name for entry in cache.entries()] == ["demo", "demo", "other"]
    assert cache.tuned() == [] and cache.libraries() == []
    cache.store(package(), anew=True)
    assert (
        len(cache.clear("other")) == 1
        and cache.clear("app") == cache.clear("third") == []
        and len(cache.clear_tuned()) == 0
        and len(cache.clear()) == 2
    )
    assert {path: path.read_text() for path in kept if path.exists()} == kept
    assert {path for path in cache.root.rglob("*") if path.is_file()} == {*kept, cache.root / "lock"}


def test_what_a_killed_writer_left_is_swept_and_a_link_is_not_followed(cache: Cache, tmp_path: Path) -> None:
    cache.store(package())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "notes.txt").write_text("precious")
    (cache.root / "tmp" / "patterncc-writing-abcd1234" / "new").mkdir(parents=True)
    (cache.root / "tmp" / "patterncc-writing-link5678").symlink_to(tmp_path / "elsewhere")
    cache.store(package(size=3))
    assert [path.name for path in rubbish(cache)] == ["patterncc-writing-link5678"]
    assert (tmp_path / "elsewhere" / "notes.txt").read_text() == "precious"
