"""The CPU path's kernels in C: how they are built, tried and kept, and what happens without them."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.package.cpu.built import kept
from tests.package.made import TOLERANCE, check, compiled, exact, run, tensors, weights_like

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")


WIDTHS = {"default": 4, "avx2": 8, "avx2 -D__AVX512F__": 16}  # of a vector; the last one in halves


PROGRAM = """
import importlib, sys, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
package = importlib.import_module(sys.argv[2])
library = importlib.import_module(sys.argv[2] + ".cpu.library").library()
torch.manual_seed(0)
q, k, v = (torch.randn(1, heads, 150, 16, requires_grad=True) for heads in (4, 2, 2))
out = package.attention(q, k, v)
grads = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
print(library is not None, *(x.double().sum().item().hex() for x in (out, *grads)))
"""


def test_it_is_built_once_and_kept(fresh: Callable[[], ModuleType], tmp_path: Path) -> None:
    assert fresh().library() is not None
    (library,) = kept(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{32}-[0-9a-f]{32}\.so", library.name)
    written = library.stat().st_mtime_ns
    again = fresh()
    again._built = None  # would fail if it were asked
    try:
        assert again.library() is not None
    finally:
        importlib.reload(again)
    assert kept(tmp_path) == [library] and library.stat().st_mtime_ns == written
    assert (tmp_path / "cache" / "cpu").stat().st_mode & 0o777 == 0o700


def test_a_loose_umask_does_not_keep_it_from_being_kept(fresh: Callable[[], ModuleType], tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        fresh().library()
        (library,) = kept(tmp_path)
        assert fresh().library()._name == str(library)
    finally:
        os.umask(before)


def test_a_damaged_one_is_built_again(fresh: Callable[[], ModuleType], tmp_path: Path) -> None:
    fresh().library()
    (library,) = kept(tmp_path)
    whole = library.read_bytes()
    library.unlink()
    library.write_bytes(whole[:100])
    assert fresh().library() is not None
    assert library in kept(tmp_path) and library.read_bytes() == whole


def test_a_cache_that_takes_nothing_costs_only_time(
    fresh: Callable[[], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is built in the folder for temporary files goes, also what an earlier process left that was killed."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cpu").write_text("in the way")
    (left := tmp_path / "temporary" / ".building-left0000").mkdir(parents=True)
    os.utime(left, (0, 0))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert fresh().library() is not None
    assert (tmp_path / "cache" / "cpu").read_text() == "in the way"
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("what", ["root", "folder", "library"])
def test_what_others_may_write_is_not_loaded(what: str, fresh: Callable[[], ModuleType], tmp_path: Path) -> None:
    fresh().library()
    (library,) = kept(tmp_path)
    places = {"root": tmp_path / "cache", "folder": library.parent, "library": library}
    places[what].chmod(0o777)
    loaded = fresh()
    assert loaded.library() is not None and loaded.library()._name != str(library)
    places[what].chmod(0o700)
    assert fresh().library()._name == str(library)  # the control


def test_what_a_killed_build_left_is_swept(fresh: Callable[[], ModuleType], tmp_path: Path) -> None:
    """Not what is being built, nor what lately was, nor what holds anything else; a lock goes with its maker."""
    module, folder = fresh(), tmp_path / "cache" / "cpu"
    for name, inner in (("left0000", "0.so"), ("held0000", "0.so"), ("other000", "notes.txt"), ("lately00", "0.so")):
        (folder / f".building-{name}").mkdir(parents=True)
        (folder / f".building-{name}" / inner).write_text("")
        os.utime(folder / f".building-{name}", (0, 0) if name != "lately00" else None)
    (folder / "precious").mkdir()
    with module.locked(folder / ".building-held0000"):
        module._sweep(folder)
    kept = {".building-held0000", ".building-lately00", ".building-other000", "precious"}
    assert {path.name for path in folder.iterdir()} == kept
    module._sweep(folder)
    assert {path.name for path in folder.iterdir()} == kept - {".building-held0000"}


@pytest.mark.parametrize("gone", ["home", "working folder"])
def test_without_a_place_for_a_cache_it_is_built_all_the_same(
    gone: str, fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = fresh()

    def refuse() -> Path:
        raise FileNotFoundError(2, "No such file or directory")

    if gone == "home":
        for name in ("PATTERNCC_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
        monkeypatch.chdir(tmp_path)
    else:
        monkeypatch.setattr(module, "cache_folder", refuse)
    monkeypatch.setattr(
        module, "_built", lambda sources, flags, name, folder: ("built", "") if folder is None else 1 / 0
    )
    assert module.library() == "built" and not list(tmp_path.glob("~*"))


def started(folder: Path, **environment: str) -> subprocess.Popen[str]:
    package = Path(str(compiled("tokens")[1].__file__)).parent
    copy = folder / "packages" / package.name
    if not copy.exists():
        shutil.copytree(package, copy)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(copy.parent), package.name],
        env=os.environ | {"PATTERNCC_CACHE_DIR": str(folder / "cache"), "PATTERNCC_CPU": ""} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_and_memory_that_holds_anything(tmp_path: Path) -> None:
    """They build side by side; the C library fills what is allocated with other bytes for each."""
    both = [started(tmp_path, MALLOC_PERTURB_=byte) for byte in ("1", "129")]
    said = [process.communicate(timeout=300)[0].split() for process in both]
    assert said[0] == said[1] and said[0][0] == "True" and len(said[0]) == 5
    assert all(path.suffix == ".so" for path in kept(tmp_path)) and len(kept(tmp_path)) in (1, 2)


@pytest.mark.parametrize("capability", WIDTHS)
def test_vectors_of_other_widths(
    capability: str, fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has no wider ones; and those of one that has, made of what there is here."""
    told, *defined = capability.split()
    if told == "avx2" and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("no AVX2 here")
    library = fresh()
    flags = {told.upper(): (*library.EXTENSIONS.get(told.upper(), ()), *defined)}
    monkeypatch.setattr(library, "EXTENSIONS", flags)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: told.upper())
    assert library.library() is not None
    for name in ("tokens", "some_dense", "one_kv_head", "both_ways_tokens"):
        pattern, package = compiled(name)
        inputs = tensors(pattern, 131, 150)
        weights = weights_like(inputs)
        part = importlib.import_module(f"{package.__name__}.cpu.compiled")
        monkeypatch.setattr(part, "library", fresh().library)
        found = run(lambda q, k, v, attend=package.attention: attend(q, k, v, return_lse=True), inputs, weights)
        check(found, exact(pattern, inputs, weights), TOLERANCE[torch.float32])


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("int attn_trial(void) { return __builtin_trap(), 0; }", "it ends with -"),
        ("int attn_trial(void) { return 4; }", "its numbers are wrong"),
        ("int attn_trial(void) { __builtin_ia32_ldmxcsr(0x9fc0); return 0; }", "it makes small numbers 0"),
        ("int other(void) { return 0; }", "attn_trial"),
    ],
)
def test_a_library_is_tried_where_it_does_no_harm(
    source: str, why: str, fresh: Callable[[], ModuleType], tmp_path: Path
) -> None:
    if "ia32" in source and platform.machine() != "x86_64":
        pytest.skip("an instruction of x86")
    (tmp_path / "made.c").write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "made.so", tmp_path / "made.c"], check=True)
    with pytest.raises(ArithmeticError, match=why):
        fresh()._try(tmp_path / "made.so")
    assert float("5e-324") * 1.0 > 0
