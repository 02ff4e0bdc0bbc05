"""An entry of the cache is whole or not there: killed writers, two writers, full disks, damage."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings

import pytest

from patterncc.codegen.package import GeneratedPackage
from patterncc.runtime.cache import Cache, CacheWarning
from patterncc.runtime.load import forget, load
from tests.runtime.packages import package, rubbish


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
    with pytest.warns(CacheWarning, match=r"manifest\.json: is a directory; it is built again"):
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
