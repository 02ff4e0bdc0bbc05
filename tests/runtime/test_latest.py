"""What a name gives: the last pattern compiled under it, as its file is now; and patterns without a file."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import patterncc
from patterncc.errors import PatternError, UsageError
from patterncc.runtime import latest
from patterncc.runtime.cache import Cache, CacheWarning
from patterncc.runtime.gallery import shipped
from patterncc.runtime.load import forget

TEXT = "pattern: 1\nname: mine\nheads: 1\nhead_dim: 16\nblock: 16\nshards:\n  - heads: all\n    local: 2\n"
KEYS = {"pattern": 1, "name": "mine", "heads": 1, "head_dim": 16, "block": 16, "shards": [{"heads": "all", "local": 2}]}


@pytest.fixture
def file(tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(latest, "_told", set())
    (tmp_path / "mine.yaml").write_text(TEXT)
    return tmp_path / "mine.yaml"


def imported(name: str = "mine") -> ModuleType:
    return getattr(importlib.import_module("patterncc.kernels"), name)


def window(module: ModuleType) -> int:
    """Blocks that the last of eight rows keeps."""
    return int(module.dense_mask(128)[0, -1].sum()) // 16


def test_the_file_as_it_is_now_and_a_note_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = patterncc.compile(file)
    assert window(imported()) == window(imported()) == 2
    assert capsys.readouterr().err == f"patterncc: mine is {file} (digest {done.digest[:12]})\n"
    file.write_text(TEXT.replace("local: 2", "local: 4"))
    assert window(imported()) == 4 == window(patterncc.load("mine"))
    assert str(file) in (told := capsys.readouterr().err) and done.digest[:12] not in told
    file.write_text(TEXT.replace("local: 2", "locl: 4"))
    with pytest.raises(PatternError, match=r"mine.yaml:8:5: unknown key `locl`"):
        imported()


def test_the_form_that_was_asked_for_is_kept(file: Path) -> None:
    patterncc.compile(file, plan="table")
    file.write_text(TEXT.replace("local: 2", "local: 4"))
    assert importlib.import_module(f"{imported().__name__}.pattern").FORM == "table"


def test_a_file_that_is_gone_or_has_another_name_by_now(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patterncc.compile(file)
    file.write_text(TEXT.replace("mine", "yours"))
    assert window(imported()) == 2
    file.unlink()
    latest._told.clear()
    capsys.readouterr()
    assert window(imported()) == 2 and "a file that is gone" in capsys.readouterr().err


def test_two_files_of_one_name(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "mine.yaml"
    other.write_text(TEXT.replace("local: 2", "local: 3"))
    patterncc.compile(file)
    with pytest.warns(CacheWarning, match=f"two files are named mine: {other} and, before, {file}"):
        patterncc.compile(other)
    assert window(imported()) == 3
    assert f"mine is {other}; not {file}, of the same name" in capsys.readouterr().err
    with pytest.warns(CacheWarning, match=f"two files are named mine: {file}"):
        patterncc.compile(file)
    file.unlink()
    patterncc.compile(other)  # no warning: one of the two is gone
    same = tmp_path / "same.yaml"
    same.symlink_to(other)
    patterncc.compile(same)


def test_a_shipped_pattern_has_no_note(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported("demo").PATTERN["name"] == "demo" == imported("demo").PATTERN["name"]
    assert capsys.readouterr().err == ""
    own = file.with_name("demo.yaml")
    own.write_text(TEXT.replace("mine", "demo"))
    with pytest.warns(CacheWarning, match=f"{own} and, before, {shipped()['demo']}"):
        patterncc.compile(own)


@pytest.mark.parametrize("damage", ["a file", "the manifest", "everything"])
@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_damaged_entry(file: Path, damage: str, older: bool, is_there: bool) -> None:
    """Built again from its file or from its own source; else the newest whole one of the name, or what to do."""
    if older:
        patterncc.compile(TEXT.replace("local: 2", "local: 3"))
    entry = patterncc.compile(file).entry
    forget(entry)
    if damage == "everything":
        entry.path.parent.rename(file.parent / "elsewhere")
    else:
        (entry.path / {"a file": "pattern.py", "the manifest": "manifest.json"}[damage]).write_text("[" * 9)
    if not is_there:
        file.unlink()
    if is_there and damage == "everything":
        assert window(imported()) == 2
    elif is_there:
        with pytest.warns(CacheWarning, match="is damaged: .*; it is built again$"):
            assert window(imported()) == 2
    elif damage == "a file":
        with pytest.warns(CacheWarning, match="built again from its own source"):
            assert window(imported()) == 2
    elif older:
        with pytest.warns(CacheWarning, match="the newest whole one of this name takes its place"):
            assert window(imported()) == 3
    else:
        with pytest.raises(UsageError, match="mine cannot be imported") as told:
            imported()
        assert f"`patterncc compile {file}`" in str(told.value)


def test_a_cache_that_takes_nothing_gives_what_it_has(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patterncc.compile(file)
    file.write_text(TEXT.replace("local: 2", "local: 4"))

    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("patterncc.runtime.writing.locked", refuse)
    assert window(imported()) == 2


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * 70_000, b"0" * 63, b"0" * 64 + b"\n\xff\n", b"\n\n\n"])
def test_a_damaged_note_is_none(file: Path, fresh_cache: Path, content: bytes) -> None:
    patterncc.compile(file)
    (fresh_cache / "latest" / "mine").write_bytes(content)
    with pytest.raises(UsageError if content.startswith(b"0" * 64 + b"\n\n") else AttributeError):
        imported()
    patterncc.compile(file)
    assert window(imported()) == 2


def test_text_and_keys(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (TEXT, KEYS, "{" + ", ".join(TEXT.replace("shards:\n  - heads: all\n    local: 2", "").split("\n")[:5])
                  + ", shards: [{heads: all, local: 2}]}"):  # fmt: skip
        assert window(patterncc.load(given)) == 2
        assert patterncc.compile(given).cached
    assert window(imported()) == 2 and "mine is compiled from text" in capsys.readouterr().err
    for n in np.arange(1, 5):  # a sweep
        assert window(patterncc.load(KEYS | {"shards": ({"heads": range(1), "local": n},)})) == n
    assert patterncc.load(KEYS | {"softcap": np.float32(30), "scale": np.float64(0.25)}).PATTERN["softcap"] == 30.0


def test_what_is_wrong_with_text_and_keys() -> None:
    with pytest.raises(PatternError, match=r"<text>:8:5: unknown key `locl`(?s:.*)did you mean local"):
        patterncc.compile(TEXT.replace("local", "locl"))
    with pytest.raises(PatternError, match=r"block is 17"):
        patterncc.compile(KEYS | {"block": 17})
    with pytest.raises(PatternError, match=r"block is the text \"16\""):
        patterncc.load(KEYS | {"block": "16"})
    circular: dict[str, object] = {}
    circular["shards"] = circular
    for wrong in (KEYS | {"block": object()}, KEYS | {"block": float("nan")}, circular, {("a",): 1}, KEYS | {"x": {1}}):
        with pytest.raises(UsageError, match="the pattern is not plain data"):
            patterncc.compile(wrong)
    for wrong in (None, 5, [TEXT], TEXT.encode()):
        with pytest.raises(TypeError, match="a pattern is a path, a name, YAML text or a dict; got "):
            patterncc.load(wrong)  # type: ignore[arg-type]
    for wrong in ({}, "\n", "{}", "a\nb"):
        with pytest.raises(PatternError):
            patterncc.compile(wrong)
    with pytest.raises(PatternError, match="a mask needs a pattern that is read from a file"):
        patterncc.compile(TEXT.replace("local: 2", "mask: m.npy"))


def test_keys_that_hold_much_within_each_other() -> None:
    deep: object = 1
    for _ in range(sys.getrecursionlimit() * 2):
        deep = {"a": deep}
    with pytest.raises(UsageError, match="too much within each other"):
        patterncc.compile({"pattern": deep})


def test_a_note_survives_being_written_and_read(fresh_cache: Path, file: Path) -> None:
    odd = file.with_name("mine \udcff é.yaml")
    odd.write_text(TEXT)
    patterncc.compile(odd)
    note = Cache.of_user().latest_note("mine")
    assert note is not None and note.source == odd and note.others == () and note.plan is None
