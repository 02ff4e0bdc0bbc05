"""The cache's own bytecode: read when it is right, written anew when it is not; Python's own is never read."""

from __future__ import annotations

import importlib.util
import marshal
import subprocess
import sys
from pathlib import Path

import pytest

from patterncc import cli
from patterncc.codegen.package import GeneratedPackage
from patterncc.runtime import bytecode
from patterncc.runtime.cache import Cache
from patterncc.runtime.entry import Entry
from patterncc.runtime.load import forget, load

TEXT = {"__init__.py": b"from .part import X\n", "part.py": b"X = 1\n"}


@pytest.fixture
def entry(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return Cache.of_user().store(GeneratedPackage("coded", "pattern: 1\n", {"form": "closed"}, TEXT))


def value(entry: Entry) -> int:
    """X of the package, imported anew."""
    found = Cache.of_user().find(entry.digest)
    assert found is not None
    try:
        return load(found).X
    finally:
        forget(found)


def kept(entry: Entry) -> dict[str, Path]:
    return {path.name.split(".cpython")[0]: path for path in (entry.path.parent / bytecode.FOLDER).iterdir()}


def test_python_bytecode_is_neither_read_nor_written(entry: Entry) -> None:
    """A file with the right header and other code: Python would run it."""
    source = entry.path / "part.py"
    foreign = Path(importlib.util.cache_from_source(str(source)))
    foreign.parent.mkdir()
    time, size = int(source.stat().st_mtime), source.stat().st_size
    header = importlib.util.MAGIC_NUMBER + bytes(4) + time.to_bytes(4, "little") + size.to_bytes(4, "little")
    foreign.write_bytes(header + marshal.dumps(compile("X = 666", str(source), "exec")))
    probe = f"import sys; sys.path.insert(0, {str(entry.path.parent)!r}); import coded; print(coded.X)"
    assert (
        subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout == "666\n"
    )  # the control
    foreign.with_name(foreign.name.replace("part", "__init__")).write_bytes(b"cut off")
    assert value(entry) == 1
    assert sorted(path.name for path in entry.path.iterdir()) == [
        "__init__.py",
        "__pycache__",
        "manifest.json",
        "part.py",
    ]


@pytest.mark.parametrize("file", ["__pycache__/part.cpython-311.pyc", "__pycache__/notes.txt"])
def test_cache_verify_sees_every_file(entry: Entry, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "verify"]) == 0
    (entry.path / file).parent.mkdir()
    (entry.path / file).write_bytes(b"anything")
    assert cli.main(["cache", "verify"]) == 1
    assert f"{file}: bytecode that patterncc neither wrote nor reads" in capsys.readouterr().out


def test_own_bytecode_is_written_once_and_read(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert value(entry) == 1 and set(kept(entry)) == {"__init__.py", "part.py"}
    written = {path: path.stat().st_mtime_ns for path in kept(entry).values()}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("patterncc.runtime.load.Checked.source_to_code", never)
    assert value(entry) == 1 and {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.parametrize(
    "damage", ["other code", "cut off", "empty", "another's hash", "no code", "folder", "of others"]
)
def test_bytecode_that_is_not_right_is_not_run(entry: Entry, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert value(entry) == 1
    file = kept(entry)["part.py"]
    whole = file.read_bytes()
    other = marshal.dumps(compile("X = 666", str(entry.path / "part.py"), "exec"))
    if damage == "other code":
        file.write_bytes(whole[: 2 * bytecode.HASH] + other)
    elif damage == "another's hash":
        file.write_bytes(kept(entry)["__init__.py"].read_bytes())
    elif damage == "no code":
        bytecode.write(entry.path.parent, "part.py", TEXT["part.py"], str(entry.path / "part.py"), 5)  # type: ignore[arg-type]
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "of others":
        facts = whole[bytecode.HASH : 2 * bytecode.HASH]
        file.write_bytes(bytecode.hashlib.sha256(facts + other).digest() + facts + other)
        assert value(entry) == 666  # the control: the file is right but for its owner
        file.chmod(0o666)
    else:
        file.write_bytes(whole[:-5] if damage == "cut off" else b"")
    if damage in ("other code", "cut off", "empty", "folder"):
        assert cli.main(["cache", "verify"]) == 1 and "part.py" in capsys.readouterr().out
    assert value(entry) == 1


def test_bytecode_that_cannot_be_kept_is_no_error(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry.path.parent / bytecode.FOLDER).write_text("in the way")
    assert value(entry) == 1
    found = Cache.of_user().find(entry.digest)
    assert found is not None
    Cache.of_user().clear()
    assert load(found).X == 1 and not entry.path.parent.exists()  # and what was removed is not made again
    forget(found)


def test_cleared_and_built_again_it_has_no_old_bytecode(entry: Entry) -> None:
    assert value(entry) == 1
    Cache.of_user().store(GeneratedPackage("coded", "pattern: 1\n", {"form": "closed"}, TEXT), anew=True)
    assert not (entry.path.parent / bytecode.FOLDER).exists() and value(entry) == 1
