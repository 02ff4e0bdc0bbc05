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

from tests.package.made import HEAD, TOLERANCE, check, compiled, exact, run, tensors, weights_like

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")
WIDTHS = {"default": 4, "avx2": 8, "avx2 -D__AVX512F__": 16}  # of a vector; the last one in halves
SOURCES = Path(__file__).parents[3] / "codegen_templates/cpu/c"

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


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], ModuleType]:
    """The module that builds libraries, of a package that has not asked for one yet, with a cache of its own."""
    monkeypatch.setenv("PATTERNCC_CPU", "")
    library = importlib.import_module(f"{compiled('tokens')[1].__name__}.cpu.library")
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", str(tmp_path / "cache"))

    def forget() -> ModuleType:
        monkeypatch.setattr(library, "_found", [])
        return library

    return forget


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "cpu").iterdir())


def holds(name: str = "tokens", queries: int = 150) -> None:
    pattern, package = compiled(name)
    inputs = tensors(pattern, queries, 150)
    weights = weights_like(inputs)
    found = run(lambda q, k, v: package.attention(q, k, v, return_lse=True), inputs, weights)
    check(found, exact(pattern, inputs, weights), TOLERANCE[torch.float32])


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


def test_without_a_compiler_torch_does_the_work(
    fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fresh().library() is None
    holds()
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    with pytest.raises(RuntimeError, match="there is no C compiler: install one, or the package ziglang"):
        fresh().library()
    assert kept(tmp_path) == []


def test_a_compiler_that_fails_is_passed_over(
    fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such machine >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", f"{broken} -O0")
    with pytest.warns(RuntimeWarning, match=r"CC=.*broken -O0 fails: no such machine; cc compiles the CPU's kernels"):
        assert fresh().library() is not None
    assert kept(tmp_path) == []
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    with pytest.raises(RuntimeError, match=r"broken -O0 fails: no such machine"):
        importlib.import_module(f"{compiled('tokens')[1].__name__}.cpu.library").library()  # another had been taken
    with pytest.raises(RuntimeError, match=r"broken -O0 fails: no such machine"):
        fresh().library()
    monkeypatch.setenv("PATH", "/bin/none")
    with pytest.raises(RuntimeError, match=r"broken -O0 fails: no such machine"):
        fresh().library()


def test_a_cache_that_takes_nothing_costs_only_time(fresh: Callable[[], ModuleType], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cpu").write_text("in the way")
    assert fresh().library() is not None
    assert (tmp_path / "cache" / "cpu").read_text() == "in the way"


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


@pytest.mark.parametrize("compiler", ['"unbalanced', "/bin/true", "no-such-compiler"])
def test_a_compiler_of_no_use_is_passed_over(
    compiler: str, fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.warns(RuntimeWarning, match="CC"):
        assert fresh().library() is not None
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    with pytest.raises(RuntimeError, match="CC"):
        fresh().library()


@pytest.mark.parametrize("command", ["{folder}/wrapper -O2", "./wrapper"], ids=["a path", "from here"])
def test_a_wrapper_script_is_the_compiler(
    command: str, fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where another compiler's library is kept already, and where its path is one from this folder."""
    assert fresh().library() is not None
    (tmp_path / "wrapper").write_text(f'#!/bin/sh\necho called >> {tmp_path}/calls\nexec cc "$@"\n')
    (tmp_path / "wrapper").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CC", command.format(folder=tmp_path))
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    assert fresh().library() is not None
    assert fresh().library() is not None
    assert (tmp_path / "calls").read_text() == "called\n" and len(kept(tmp_path)) == 2
    holds()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["tokens", "all_dense"])
def test_a_misspelt_switch_is_refused_by_every_call(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEAD + "shards: [{heads: all, dense: true}]" if name == "all_dense" else name
    pattern, package = compiled(text)
    monkeypatch.setenv("PATTERNCC_CPU", "foo")
    q, k, v = tensors(pattern, 20, dtype=dtype)
    packed, starts = [x[0].transpose(0, 1) for x in (q, k, v)], torch.tensor([0, 20], dtype=torch.int32)
    cache, table = k.new_zeros(2, 16, 2, 16), torch.tensor([[0, 1]], dtype=torch.int32)
    for call in (
        lambda: package.attention(q, k, v),
        lambda: package.attention_varlen(*packed, starts, starts, 20, 20),
        lambda: package.decode(packed[0][None], cache, cache, table, starts[1:]),
    ):
        with pytest.raises(ValueError, match="PATTERNCC_CPU is 'foo'; expected torch or compiled"):
            call()


def test_another_value_of_the_switch_is_refused(
    fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATTERNCC_CPU", "numba")
    with pytest.raises(ValueError, match="PATTERNCC_CPU is 'numba'; expected torch or compiled"):
        fresh().library()


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


def test_a_compiler_of_wrong_numbers_is_passed_over(
    fresh: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """-ffast-math has no infinities, which the kernels need. What is made next is not what was loaded before."""
    monkeypatch.setenv("CC", "cc -ffast-math")
    with pytest.warns(RuntimeWarning, match="its numbers are wrong; cc compiles"):
        assert fresh().library() is not None
    holds()
    monkeypatch.setattr(fresh(), "_compilers", lambda: iter([["cc", "-ffast-math"]]))
    monkeypatch.setenv("PATTERNCC_CPU", "compiled")
    monkeypatch.setenv("PATTERNCC_CACHE_DIR", "/dev/null")
    with pytest.raises(RuntimeError, match="cc -ffast-math gives no library of use: its numbers are wrong"):
        fresh().library()
    assert float("5e-324") * 1.0 > 0  # and here nothing has changed: what it is linked with flushes subnormal numbers


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


FAULTS = {  # file: what a fault changes there
    "tiles.h": ("(from < before)", "(from <= before)"),
    "forward.c": ("*sum * weight + more", "*sum + more"),
    "backward.c": ("- *(const Vector *)(delta", "+ *(const Vector *)(delta"),
}


def tried(folder: Path, compiler: str, *runner: str) -> int:
    """What the trial says of the sources in a folder when they are compiled so: the types that are wrong, as bits."""
    (folder / "main.c").write_text("int attn_trial(void);\nint main(void) { return attn_trial(); }\n")
    made = folder / "trial"
    subprocess.run(
        [*compiler.split(), "-std=gnu11", "-w", *sorted(map(str, folder.glob("*.c"))), "-o", str(made), "-lm"],
        check=True,
    )
    return subprocess.run([*runner, str(made)]).returncode


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for file in SOURCES.glob("*.[ch]"):
        shutil.copy(file, tmp_path)
    return tmp_path


def test_the_trial_holds_without_optimisation(sources: Path) -> None:
    assert tried(sources, "cc -O0") == 0


@pytest.mark.parametrize("file", FAULTS)
def test_the_trial_finds(file: str, sources: Path) -> None:
    right, wrong = FAULTS[file]
    text = (sources / file).read_text()
    assert text.count(right) == 1
    (sources / file).write_text(text.replace(right, wrong))
    assert tried(sources, "cc -O0") != 0


def test_the_trial_holds_on_aarch64(sources: Path) -> None:
    if not (shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64")):
        pytest.skip("no compiler for aarch64, or nothing that runs it")
    assert tried(sources, "aarch64-linux-gnu-gcc -O3 -static", "qemu-aarch64") == 0


@pytest.mark.parametrize("flags", [("-mavx512f", "-mfma"), ("-mavx2", "-mfma"), ()])
def test_the_sources_have_no_warnings(flags: tuple[str, ...], tmp_path: Path) -> None:
    every = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-c")
    sources = sorted(SOURCES.glob("*.c"))
    assert len(sources) == 3
    if flags and os.uname().machine != "x86_64":
        pytest.skip("flags of x86")
    for source in sources:
        subprocess.run(["cc", *every, *flags, str(source), "-o", str(tmp_path / "object.o")], check=True)
