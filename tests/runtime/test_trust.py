"""What another user owns, or could have written, is not run: neither from the cache nor by a note that leads there."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import patterncc
from patterncc.errors import UsageError
from patterncc.pipeline import load_compiled
from patterncc.runtime.cache import Cache
from patterncc.runtime.load import forget, module_name
from patterncc.runtime.trust import Untrusted
from tests.runtime.packages import package

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes are POSIX")
TEXT = "pattern: 1\nname: mine\nheads: 1\nhead_dim: 16\nblock: 16\nshards: [{heads: all, local: 2}]\n"
SOMEBODY = 12345
PLACES: dict[str, Callable[[Path, str], Path]] = {
    "root": lambda root, digest: root,
    "packages": lambda root, digest: root / "packages",
    "digest": lambda root, digest: root / "packages" / digest,
    "package": lambda root, digest: root / "packages" / digest / "mine",
    "file": lambda root, digest: root / "packages" / digest / "mine" / "pattern.py",
    "manifest": lambda root, digest: root / "packages" / digest / "mine" / "manifest.json",
    "latest": lambda root, digest: root / "latest",
    "note of a name": lambda root, digest: root / "latest" / "mine",
    "seen": lambda root, digest: root / "seen",
    "note of an input": lambda root, digest: next((root / "seen").iterdir()),
}


@pytest.fixture
def file(tmp_path: Path, fresh_cache: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(TEXT)
    return tmp_path / "mine.yaml"


def give_away(place: Path, how: str) -> None:
    if how == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        os.chown(place, SOMEBODY, SOMEBODY)
    else:
        place.chmod(0o777 if how == "others" else 0o770)


def asked(file: Path, name: str) -> dict[str, Callable[[], object]]:
    """Every way from the cache to code that runs."""
    return {
        "compile": lambda: patterncc.compile(file),
        "load": lambda: patterncc.load(file),
        "load by name": lambda: load_compiled("mine"),
        "import": lambda: importlib.import_module("patterncc.kernels").mine,
        "import of a pickled name": lambda: importlib.import_module(name),
        "copy": lambda: patterncc.compile(file, output=file.parent / "out"),
    }


@pytest.mark.parametrize("how", ["owner", "others", "group"])
@pytest.mark.parametrize("place", PLACES)
def test_what_others_could_have_written_is_refused(place: str, how: str, file: Path, fresh_cache: Path) -> None:
    done = patterncc.compile(file)
    name, there = module_name(done.entry), PLACES[place](fresh_cache, done.digest)
    give_away(there, how)
    skipped = {  # which do not pass this place
        "latest": {"import of a pickled name"},
        "note of a name": {"import of a pickled name"},
        "seen": {"import of a pickled name"},
        "note of an input": {"import of a pickled name"},
    }
    for way, ask in asked(file, name).items():
        if way in skipped.get(place, ()):
            continue
        forget(done.entry)
        with pytest.raises(Untrusted, match=r"another user|other users") as told:
            ask()
        assert str(there) in str(told.value) and "PATTERNCC_CACHE_DIR" in str(told.value), way
        assert not [module for module in sys.modules if module.startswith(name)], way
    assert not (file.parent / "out").exists()
    os.chown(there, os.geteuid(), -1)
    there.chmod(0o700)
    assert load_compiled("mine") is patterncc.load(file)  # the control: it was only that
    forget(done.entry)


def test_a_link_that_somebody_else_made_is_refused(file: Path, fresh_cache: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    patterncc.compile(file)
    fresh_cache.rename(tmp_path / "elsewhere")
    fresh_cache.symlink_to(tmp_path / "elsewhere")
    assert patterncc.compile(file).cached  # a link of one's own is none the worse
    os.chown(fresh_cache, SOMEBODY, SOMEBODY, follow_symlinks=False)
    with pytest.raises(Untrusted, match="belongs to another user"):
        patterncc.compile(file)


def test_a_root_that_others_can_write_is_closed_while_it_is_empty(tmp_path: Path) -> None:
    root = tmp_path / "open"
    root.mkdir()
    root.chmod(0o777)
    Cache(root).store(package())
    assert root.stat().st_mode & 0o777 == 0o700
    root.chmod(0o777)
    for ask in (
        lambda: Cache(root).store(package(size=3)),
        lambda: Cache(root).find(package().digest),
        Cache(root).clear,
    ):
        with pytest.raises(UsageError, match=r"can be written by other users \(its mode is 777\)") as told:
            ask()
        assert f"chmod -R go-w {root}" in str(told.value)


def test_a_loose_umask_makes_no_cache_that_is_refused(file: Path, fresh_cache: Path) -> None:
    before = os.umask(0)
    try:
        assert not patterncc.compile(file).cached and patterncc.compile(file).cached
    finally:
        os.umask(before)
    assert not [path for path in fresh_cache.rglob("*") if path.stat().st_mode & 0o022]


def test_the_command_line_says_how_to_mend_it(file: Path, fresh_cache: Path) -> None:
    patterncc.compile(file)
    (fresh_cache / "packages").chmod(0o777)
    for command in (["compile", str(file)], ["cache", "clear"], ["compile", str(file), "--force"]):
        done = subprocess.run([sys.executable, "-m", "patterncc", *command], capture_output=True, text=True)
        assert done.returncode == 2 and "chmod -R go-w" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run([sys.executable, "-m", "patterncc", "cache", "verify"], capture_output=True, text=True)
    assert done.returncode == 1 and "packages can be written by other users" in done.stdout


def test_an_entry_of_somebody_else_is_replaced_by_force(file: Path, fresh_cache: Path) -> None:
    done = patterncc.compile(file)
    (done.path / "pattern.py").chmod(0o666)
    with pytest.raises(Untrusted):
        patterncc.compile(file)
    patterncc.compile(file, force=True)
    assert patterncc.compile(file).cached
