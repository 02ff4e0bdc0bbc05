"""Copies of packages: an earlier one is replaced, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from patterncc.errors import UsageError
from patterncc.runtime.cache import Cache, CacheWarning
from patterncc.runtime.export import export
from tests.runtime.test_cache import package


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
    mine = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(UsageError, match=r"was edited since patterncc wrote it: (__init__|notes|table_0)") as told:
        export(entry, tmp_path)
    assert "--force" in told.value.render()
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == mine
    export(entry, tmp_path, force=True)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == dict(entry.contents)


def test_a_copy_that_hides_a_module_of_python_says_so(cache: Cache, tmp_path: Path) -> None:
    with pytest.warns(CacheWarning, match="hides Python's own module 'random'"):
        export(cache.store(package("random")), tmp_path)
