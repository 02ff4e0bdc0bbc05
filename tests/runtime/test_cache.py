"""An entry of the cache is whole or not there: killed writers, two writers, full disks, damage."""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import pkgutil
import random
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import filelock
import pytest

from patterncc.codegen.package import GeneratedPackage
from patterncc.errors import UsageError
from patterncc.runtime import writing
from patterncc.runtime.cache import Cache, CacheWarning
from patterncc.runtime.load import forget, load


def package(name: str = "demo", size: int = 1000, source: str = "pattern: 1\n") -> GeneratedPackage:
    sources = {"__init__.py": b"X = 1\n", "table_0.bin": bytes(size), "ops.py": b"Y = 2\n"}
    sources |= {"inner/__init__.py": b"", "inner/ops.py": b"Y = 2\n", "inner/c/ops.c": b"int y = 2;\n"}
    return GeneratedPackage(name, source, {"plan": None}, sources)


@pytest.fixture
def cache(fresh_cache: Path) -> Cache:
    return Cache.of_user()


def rubbish(cache: Cache) -> list[Path]:
    return list((cache.root / "tmp").iterdir())


def test_what_is_stored_is_found(cache: Cache) -> None:
    entry = cache.store(package())
    assert cache.find(package().digest) == entry == cache.store(package())
    assert entry.path == cache.root / "packages" / entry.digest / "demo"
    assert entry.read() == dict(package().files)
    assert cache.find("0" * 64) is None
    assert rubbish(cache) == []


def test_equal_input_equal_bytes_and_any_change_another_digest() -> None:
    assert package().files == package().files
    made = [package(), package("other"), package(size=1001), package(source="pattern: 1 \n")]
    assert len({p.digest for p in made}) == len(made)


def test_the_latest_of_a_name_and_what_an_input_gave(cache: Cache) -> None:
    first, second = cache.store(package()), cache.store(package(size=5))
    cache.remember(first, "a" * 64)
    cache.remember(second)
    assert cache.latest("demo") == second and cache.seen("a" * 64) == first
    assert cache.latest("other") is None and cache.seen("b" * 64) is None
    assert [e.digest for e in cache.entries()] == [first.digest, second.digest]


def test_folders_are_for_their_owner_alone(cache: Cache) -> None:
    entry = cache.store(package())
    for folder in (cache.root, cache.packages, entry.path.parent, entry.path, entry.path / "inner/c"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


MANIFESTS = {  # damaged ones, by what is wrong
    "deep": b"[" * 100_000,
    "deep within": b'{"name": ' + b"[" * 100_000,
    "list": b"[]",
    "number": b"1",
    "not UTF-8": b"\xff\xfe{",
    "cut off": b'{"name": "demo", "sou',
    "NaN": b'{"name": NaN, "source": 1, "options": 2, "files": 3, "digest": 4}',
    "a million digits": b"9" * 1_000_000,
}


@pytest.mark.parametrize("wrong", MANIFESTS)
def test_a_manifest_that_is_none_is_damage(cache: Cache, wrong: str) -> None:
    entry = cache.store(package())
    (entry.path / "manifest.json").write_bytes(MANIFESTS[wrong])
    with pytest.warns(CacheWarning, match="is built again"):
        assert cache.find(entry.digest) is None
    assert cache.store(package()) == entry and cache.find(entry.digest) == entry


def test_a_folder_where_a_manifest_should_be(cache: Cache) -> None:
    entry = cache.store(package())
    (entry.path / "manifest.json").unlink()
    (entry.path / "manifest.json").mkdir()
    with pytest.warns(CacheWarning, match=r"manifest\.json: Is a directory; it is built again"):
        assert cache.find(entry.digest) is None
    assert cache.store(package()) == entry


@pytest.mark.parametrize("inner", ["", "inner"])
@pytest.mark.parametrize("damage", ["changed", "missing", "more", "manifest", "empty", "gone"])
def test_a_damaged_entry_is_built_again(cache: Cache, damage: str, inner: str) -> None:
    entry = cache.store(package())
    ops = entry.path / inner / "ops.py"
    if damage == "changed":
        ops.write_bytes(b"Y = 3\n")
    elif damage == "missing":
        ops.unlink()
    elif damage == "more":
        (entry.path / inner / "more.py").write_bytes(b"")
    elif damage == "manifest":
        text = (entry.path / "manifest.json").read_text()
        (entry.path / "manifest.json").write_text(text.replace("pattern: 1", "pattern: 2"))
    elif damage == "empty":
        (entry.path / "manifest.json").write_bytes(b"")
    else:
        entry.path.rename(cache.root / "elsewhere")
    with pytest.warns(CacheWarning, match="is built again"):
        assert cache.find(entry.digest) is None
    assert cache.store(package()) == entry
    assert cache.find(entry.digest) == entry and rubbish(cache) == []


def test_bytecode_is_no_damage(cache: Cache) -> None:
    entry = cache.store(package())
    for folder in (entry.path, entry.path / "inner"):
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__/ops.pyc").write_bytes(b"")
    assert cache.find(entry.digest) == entry
    (entry.path / "inner/more").symlink_to(entry.path.parent)  # what lies behind it is not looked at
    with pytest.raises(ValueError, match="inner/more: missing, or not of the package"):
        entry.read()


WRITER = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import filelock
from patterncc.codegen.package import GeneratedPackage
from patterncc.runtime.cache import Cache
n = int(sys.argv[2])
print("ready", flush=True)
while True:
    n += 1
    sources = {f"f{k}.bin": os.urandom(2000) for k in range(8)} | {"__init__.py": f"N = {n}".encode()}
    entry = Cache.of_user().store(GeneratedPackage("demo", str(n), {}, sources))
    Cache.of_user().remember(entry)
"""
ROOT = str(Path(writing.__file__).parents[2])
PLACES = os.pathsep.join([ROOT, str(Path(filelock.__file__).parents[1])])  # of what a process without `site` imports


def writer(n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-S", "-c", WRITER, PLACES, str(n)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def test_a_kill_at_any_moment_leaves_nothing_or_a_whole_entry(cache: Cache) -> None:
    chance = random.Random(7)
    for n in range(120):  # at least 12 kills; a busy machine needs more until some writers got far enough
        process = writer(n * 1000)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.wait()
        if n >= 11 and len(cache.entries()) > 5 and cache.latest("demo"):  # the name is noted after the entry
            break
    entries = cache.entries()
    assert len(entries) > 5
    for entry in entries:
        entry.read()
    latest = cache.latest("demo")
    assert latest is not None
    cache.store(package())  # whoever writes next sweeps
    assert rubbish(cache) == []


def test_the_kill_test_would_see_a_half_written_entry(cache: Cache) -> None:
    """Negative control: without the temporary folder, files appear one by one, and reading such an entry fails."""
    made = package()
    folder = cache.packages / made.digest / "demo"
    folder.mkdir(parents=True)
    for count, (name, data) in enumerate(made.files.items()):
        entry = cache.entries()[0]
        assert count < len(made.files)
        with pytest.raises(ValueError):
            entry.read()
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(data)
    assert cache.entries()[0].read()


def test_two_writers_at_once(cache: Cache) -> None:
    processes = [writer(0), writer(0), writer(5)]  # numbered alike: they write to the same names
    deadline = time.monotonic() + 20
    while len(cache.entries()) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [process.poll() is None for process in processes]
    for process in processes:
        process.kill()
        process.wait()
    entries = cache.entries()
    assert all(alive) and len(entries) >= 20
    for entry in entries:
        entry.read()


def test_a_full_disk(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(package())
    before = sorted(cache.root.rglob("*"))

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"cannot write to the cache .*: No space left on device") as raised:
        cache.store(package(size=7))
    assert "PATTERNCC_CACHE_DIR" in str(raised.value)
    assert sorted(cache.root.rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_file_cut_by_a_limit(cache: Cache) -> None:
    script = (
        "import os, resource, sys\nsys.path[:0] = sys.argv[1].split(os.pathsep)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "from patterncc.codegen.package import GeneratedPackage\nfrom patterncc.runtime.cache import Cache\n"
        "Cache.of_user().store(GeneratedPackage('demo', '', {}, {'__init__.py': bytes(9000)}))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script, PLACES], capture_output=True, text=True)
    assert "UsageError: cannot write to the cache" in done.stderr and "File too large" in done.stderr
    assert cache.entries() == [] and rubbish(cache) == []


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
        with pytest.raises(UsageError, match=r"cannot read the cache, .*: File name too long"):
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


def test_clear(cache: Cache) -> None:
    made = [cache.store(p) for p in (package(), package(size=9), package("other"))]
    for entry in made:
        cache.remember(entry)
    assert {e.name for e in cache.clear("demo")} == {"demo"}
    assert cache.latest("demo") is None and [e.name for e in cache.entries()] == ["other"]
    assert len(cache.clear()) == 1 and cache.entries() == [] and cache.clear() == []
    assert cache.store(package()) == made[0]


@pytest.mark.parametrize("names", [[], ["demo", "other"]])
def test_a_folder_that_is_no_entry_is_damage_and_can_be_cleared(cache: Cache, names: list[str]) -> None:
    """What a cleaner of old files or a file manager leaves."""
    cache.store(package())
    for name in ("", *names):
        (cache.packages / ("f" * 64) / name).mkdir(parents=True, exist_ok=True)
    listed = cache.entries()
    assert [entry.name for entry in listed] == ["?", "demo"]
    assert [entry.bytes > 0 for entry in listed] == [False, True]
    with pytest.raises(ValueError, match=r"manifest\.json"):
        listed[0].read()
    assert len(cache.clear()) == 2 and cache.entries() == []


def test_an_entry_that_was_found_survives_a_clear(cache: Cache) -> None:
    """Another process may clear the cache between the check and the import, and before a module is first needed."""
    text = {"__init__.py": b"from .part import X\n", "part.py": b"X = 1\n", "later.py": b"from .part import X as Y\n"}
    text |= {"inner/__init__.py": b"", "inner/last.py": b"from ..part import X as Z\n", "inner/c/text.h": b"// text"}
    stored = cache.store(GeneratedPackage("survivor", "pattern: 1\n", {"form": "closed"}, text))
    found = cache.find(stored.digest)
    assert found is not None and cache.clear() == [stored]
    assert not stored.path.exists() and found.manifest.options["form"] == "closed"
    try:
        module = load(found)
        later = importlib.import_module(f"{module.__name__}.later")
        assert (module.X, later.Y) == (1, 1) and inspect.getsource(later) == "from .part import X as Y\n"
        last = importlib.import_module(f"{module.__name__}.inner.last")
        assert last.Z == 1 and pkgutil.get_data(last.__package__, "c/text.h") == b"// text"
        for name in ("nothing", "inner.nothing", "part.nothing"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(f"{module.__name__}.{name}")
    finally:
        forget(found)


def test_damage_is_told_once(cache: Cache, recwarn: pytest.WarningsRecorder) -> None:
    entry = cache.store(package())
    (entry.path / "ops.py").write_bytes(b"Y = 3\n")
    warnings.simplefilter("default", CacheWarning)
    assert cache.find(entry.digest) is None and cache.seen("a" * 64) is None and cache.find(entry.digest) is None
    cache.remember(entry)
    assert cache.latest("demo") is None
    assert len(recwarn.list) == 1


RACER = """
import sys
sys.path.insert(0, sys.argv[1])
from patterncc.runtime.cache import Cache
from tests.runtime.test_cache import package
print("ready", flush=True)
while True:
    Cache.of_user().store(package(), anew=True)
    if sys.argv[2] == "clear":
        Cache.of_user().clear()
"""


@pytest.mark.parametrize("race", ["clear", "force"])
def test_readers_that_race_a_writer_see_no_damage(cache: Cache, race: str, recwarn: pytest.WarningsRecorder) -> None:
    digest = package().digest
    with subprocess.Popen([sys.executable, "-c", RACER, ROOT, race], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            found, until = set[bool](), time.monotonic() + 20
            while time.monotonic() < until and (len(found) < 2 or time.monotonic() < until - 18.5):
                found.add(cache.find(digest) is not None)
                assert not [why for _, why in cache.checked() if why]
        finally:
            process.kill()
    assert found == {True, False} and not [warning.message for warning in recwarn.list]


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
