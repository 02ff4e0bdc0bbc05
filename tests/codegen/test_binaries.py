"""Packages with binaries: first calls compile nothing, what does not match is left to the JIT and said.

A stub driver stands for the GPU (stub_gpu.py), one process for all that is tried.
"""

from __future__ import annotations

import doctest
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import patterncc
from patterncc import cli
from patterncc.codegen.binaries import ship_binaries
from patterncc.codegen.package import GeneratedPackage
from patterncc.codegen.template import templates
from patterncc.language import loads
from patterncc.pipeline import Compiled, generate
from patterncc.runtime.cache import Cache, CacheWarning

triton = pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
TEXT = """\
pattern: 1
name: small
heads: 4
kv_heads: 2
head_dim: 64
block: 64
shards: [{heads: all, local: 2, stride: 4, offset: h}]
promises: {}
"""
KERNELS = {f"attn_{kernel}_small" for kernel in ("fwd", "bwd_prepare", "bwd_dq", "bwd_dkdv", "bwd_sum", "bwd_round")}
COMBINE = "attn_combine_small"  # where the last program has too much to merge


def environment(cache: Path) -> dict[str, str]:
    """Environment variables of a process that compiles as binaries are compiled, with Triton's cache in `cache`."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "TRITON_CACHE_DIR": str(cache)}
    return os.environ | {"TRITON_DISABLE_LINE_INFO": "1", "PYTHONDONTWRITEBYTECODE": "1"} | paths


Once = Callable[[str, Callable[[Path], None]], Path]


def build(folder: Path) -> Compiled:
    """The pattern with binaries for sm_90 and fp16, copied to `folder`/shipped; the cache is in `folder` too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
        patch.setenv("PATTERNCC_CACHE_DIR", str(folder / "cache"))
        return patterncc.compile(folder / "small.yaml", output=folder / "shipped", binaries=["sm_90"], dtype="fp16")


@pytest.fixture(scope="session")
def folder(once: Once) -> Path:
    """With everything that is compiled in this file, in any worker."""

    def make(folder: Path) -> None:
        (folder / "small.yaml").write_text(TEXT)
        build(folder)
        patterncc.compile(folder / "small.yaml", output=folder / "plain")

    return once("binaries", make)


@pytest.fixture(scope="session")
def compiled(folder: Path) -> Compiled:
    """Found in the cache, and where it was copied."""
    done = build(folder)
    assert done.cached
    return done


def altered(compiled: Compiled, name: str, alter: Callable[[Path], object]) -> Path:
    """A copy of the package with something else in it."""
    folder = compiled.path.parents[1] / name
    shutil.copytree(compiled.path, folder)
    alter(folder)
    return folder


def flip(file: Path) -> None:
    """Change one bit."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def edit(file: Path) -> None:
    file.write_text(file.read_text() + "# mended\n")


@pytest.fixture(scope="session")
def seen(once: Once, compiled: Compiled, folder: Path) -> dict[str, dict[str, Any]]:
    """What the driver was given, and the notes, of each thing tried."""
    tried = once(
        "binaries_tried", lambda place: (place / "seen.json").write_text(json.dumps(attempts(compiled, folder)))
    )
    return json.loads((tried / "seen.json").read_text())


def attempts(compiled: Compiled, folder: Path) -> dict[str, dict[str, Any]]:
    """All of them, in one process."""
    shipped = {"folder": str(compiled.path), "arch": "sm_90", "target": 90, "calls": "usual"}
    asked = {**shipped, "jit": "asked"}
    damages: dict[str, Callable[[Path], object]] = {
        "damaged binary": lambda folder: flip(folder / "sm_90_attn_fwd_00.cubin"),
        "damaged description": lambda folder: flip(folder / "sm_90_attn_bwd_dq_00.json"),
        "binary missing": lambda folder: (folder / "sm_90_attn_bwd_sum_00.cubin").unlink(),
        "another's binary": lambda folder: shutil.copy(
            folder / "sm_90_attn_fwd_00.cubin", folder / "sm_90_attn_fwd_01.cubin"
        ),
        "edited kernel": lambda folder: edit(folder / "kernels/forward.py"),
        "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    }
    orders = {
        "shipped": {**shipped, "jit": "forbidden"},
        "covered": {**shipped, "jit": "forbidden", "calls": "covered"},
        "jit": {**shipped, "jit": "used", "folder": str(folder / "plain" / "small")},
        "plain": {**asked, "folder": str(folder / "plain" / "small")},
        "other triton": {**asked, "triton": "3.4.1"},
        "other arch": {**asked, "arch": "sm_100", "target": 100},
        "other backend": {**asked, "arch": "gfx942", "target": "gfx942"},
        "not aligned": {**asked, "calls": "not_aligned"},
        "few": {**asked, "calls": "few"},
        "other dtype": {**asked, "calls": "other_dtype"},
        **{name: {**asked, "folder": str(altered(compiled, name, alter))} for name, alter in damages.items()},
    }
    command = [sys.executable, str(Path(__file__).with_name("stub_gpu.py"))]
    given = json.dumps(list(orders.values()))
    done = subprocess.run(command, input=given, env=environment(folder / "triton"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(orders, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_nothing_is_compiled(seen: dict[str, dict[str, Any]], compiled: Compiled) -> None:
    """The JIT raises when it is asked; what is loaded are the files' bytes, each once though all is called twice."""
    own = seen["shipped"]
    shipped = {hashlib.sha256(file.read_bytes()).hexdigest() for file in compiled.path.glob("*.cubin")}
    assert {name for name, _, _ in own["loaded"]} == {entry[0] for entry in own["launched"]} == KERNELS
    assert {digest for _, digest, _ in own["loaded"]} <= shipped and len(own["loaded"]) == 15
    assert len({digest for _, digest, _ in own["loaded"]}) == 15 and len(own["launched"]) == 42
    assert own["notes"] == []


def test_what_the_manual_calls_covered(seen: dict[str, dict[str, Any]]) -> None:
    assert {entry[0] for entry in seen["covered"]["launched"]} == KERNELS | {COMBINE}
    assert seen["covered"]["notes"] == []
    assert seen["few"]["asked"] == ["attn_fwd_small"] * 4  # seven queries, and pages of 32 tokens; twice


def test_the_driver_is_given_what_the_jit_gives_it(seen: dict[str, dict[str, Any]]) -> None:
    own, jit = seen["shipped"], seen["jit"]
    assert own["loaded"] == jit["loaded"]
    assert own["launched"] == jit["launched"] and jit["launched"]


def test_the_jit_would_be_seen(seen: dict[str, dict[str, Any]]) -> None:
    """Negative control: without binaries it is asked for every kernel, and no note is given."""
    assert set(seen["plain"]["asked"]) == KERNELS
    assert seen["plain"]["loaded"] == seen["plain"]["notes"] == []


@pytest.mark.parametrize(
    ("tried", "asked", "notes"),
    [
        ("other triton", KERNELS, [f"they are built for triton {triton.__version__}, here is 3.4.1"]),
        ("other arch", KERNELS, ["they are built for sm_90, here is sm_100"]),
        ("other backend", KERNELS | {COMBINE}, ["they are built for sm_90, here is gfx942"]),
        ("not aligned", {"attn_fwd_small", "attn_bwd_dq_small", "attn_bwd_dkdv_small"}, ["q *fp16 (not *fp16 div"] * 3),
        ("few", {"attn_fwd_small"}, ["BLOCK_Q 8 (not 1)"]),
        (
            "other dtype",
            KERNELS - {"attn_bwd_round_small"},  # sums of float32 are results as they are
            [f"{x} *fp32 divisible by 16 (not *fp16 divi" for x in ("q", "out", "q", "q", "dk")],
        ),
        ("damaged binary", {"attn_fwd_small"}, ["sm_90_attn_fwd_00.cubin: not as written"]),
        ("damaged description", {"attn_bwd_dq_small"}, ["sm_90_attn_bwd_dq_00.json: not as written"]),
        ("binary missing", {"attn_bwd_sum_small"}, ["sm_90_attn_bwd_sum_00.cubin: not as written"]),
        ("another's binary", {"attn_fwd_small"}, ["sm_90_attn_fwd_01.cubin: not as written"]),
        ("edited kernel", KERNELS, ["they are built from another kernels/forward.py"]),
        ("no manifest", KERNELS, []),
    ],
)
def test_what_does_not_match_is_left_to_the_jit(
    tried: str, asked: set[str], notes: list[str], seen: dict[str, dict[str, Any]]
) -> None:
    own = seen[tried]
    assert set(own["asked"]) == asked
    assert len(own["notes"]) == len(set(own["notes"])) <= len(asked)
    for note, wanted in zip(own["notes"], notes, strict=True):
        assert wanted in note and note.startswith("small: Triton compiles, no binary in ")
    for name, digest, _ in own["loaded"]:
        assert [name, digest] in [loaded[:2] for loaded in seen["shipped"]["loaded"]]


def test_two_builds_are_equal(compiled: Compiled, folder: Path, tmp_path: Path) -> None:
    """In another folder, with nothing compiled before: the forward kernel for one query, the third kind of call."""
    again, made = tmp_path / "again", tmp_path / "made"
    shutil.copytree(folder / "plain" / "small", again)
    made.mkdir()
    command = [sys.executable, "-m", "patterncc.codegen.binaries", again, "sm_90", "fp16", made, 2, 1000]
    subprocess.run(list(map(str, command)), env=environment(tmp_path / "triton"), check=True)
    assert {file.name for file in made.iterdir()} == {"sm_90_attn_fwd_02.cubin", "sm_90_attn_fwd_02.json"}
    for file in made.iterdir():
        assert file.read_bytes() == (compiled.path / file.name).read_bytes()


def test_no_path_of_this_machine(compiled: Compiled, folder: Path) -> None:
    places = {str(folder), str(ROOT), sys.prefix, str(Path.home()), tempfile.gettempdir()} - {"/"}
    files = [file for file in compiled.path.iterdir() if file.suffix in (".cubin", ".json")]
    assert len(files) == 2 * 28 + 1
    for file in files:
        for place in places:
            assert place.encode() not in file.read_bytes(), (file.name, place)


def test_they_are_files_of_the_package(compiled: Compiled) -> None:
    manifest = compiled.entry.manifest
    assert {file.name for file in compiled.path.glob("sm_90_*")} <= set(manifest.files)
    assert manifest.options["binaries"] == {"arches": ["sm_90"], "dtype": "fp16", "triton": triton.__version__}
    for file in compiled.path.glob("sm_90_*"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() == manifest.files[file.name]


def test_an_entry_of_its_own(
    compiled: Compiled, folder: Path, fresh_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compiled once; the package without binaries is another one; a damaged binary is damage like any other."""
    shutil.copytree(folder / "cache", fresh_cache)
    asked = ["compile", str(folder / "small.yaml"), "--arch", "sm_90", "--binaries", "--dtype", "fp16"]
    assert cli.main([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cached"] and document["digest"] == compiled.digest
    assert document["binaries"]["triton"] == triton.__version__ and len(document["kernels"]) == 28
    assert {(kernel["arch"], kernel["kernel"].split()[0]) for kernel in document["kernels"]} == {
        ("sm_90", kernel) for kernel in KERNELS | {COMBINE}
    }
    assert cli.main(asked) == 0
    assert f"28 binaries for sm_90 (fp16, triton {triton.__version__})" in capsys.readouterr().out
    plain = patterncc.compile(folder / "small.yaml")
    assert plain.digest != compiled.digest and plain.binaries is None
    flip(fresh_cache / "packages" / compiled.digest / "small" / "sm_90_attn_fwd_00.cubin")
    with pytest.warns(CacheWarning, match="sm_90_attn_fwd_00.cubin was changed; it is built again"):
        assert Cache.of_user().find(compiled.digest) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--binaries"], "--binaries needs --arch"),
        (["--binaries", "--arch", "sm90"], "--arch is 'sm90'"),
        (["--binaries", "--arch", "sm_90", "--dtype", "fp8"], "--dtype is 'fp8'"),
    ],
)
def test_wrong_options(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compile", "demo", *options]) == 2
    assert words in capsys.readouterr().err


def test_wrong_arguments() -> None:
    package = GeneratedPackage("small", "", {}, {"__init__.py": b""})
    with pytest.raises(ValueError, match="did you mean sm_90"):
        ship_binaries(package, ["sm90"], "fp16")
    with pytest.raises(ValueError, match="unknown dtype 'fp8'"):
        ship_binaries(package, ["sm_90"], "fp8")
    with pytest.raises(RuntimeError, match="compiling small for sm_90 failed"):
        ship_binaries(package, ["sm_90"], "fp16")


@pytest.mark.parametrize("name", ["manifest.json", "sm_90.so", "../a.cubin", "A.cubin"])
def test_what_is_no_file_of_a_package(name: str) -> None:
    with pytest.raises(ValueError, match="not a file of a package"):
        GeneratedPackage("small", "", {}, {name: b""})


def test_the_words_for_calls() -> None:
    failed, tried = doctest.testmod(importlib.import_module("codegen_templates.launch.binaries"))
    assert not failed and tried >= 3


def test_the_files_of_kernels() -> None:
    """Binaries are not loaded for kernels that were edited: each file with a function of theirs is named. The Hopper
    family's are not shipped."""
    known = importlib.import_module("codegen_templates.launch.configs").KERNEL_FILES
    files = [file for file, template in templates().items() if "\n@triton.jit" in template.text]
    assert sorted(f"kernels/{name}.py" for name in known) == [f for f in files if not f.startswith("kernels/hopper/")]


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "gfx942"])
@pytest.mark.parametrize("plan", ["closed", "table"])
def test_other_targets(arch: str, plan: str, tmp_path: Path) -> None:
    """Everything compiles, twice to the same bytes; caches above 2 GiB are calls of their own on AMD's GPUs."""
    package = generate(loads(TEXT), plan)
    builds = []
    for n in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_CACHE_DIR", str(tmp_path / f"{n}"))
            builds.append(ship_binaries(package, [arch], "bf16"))
    assert builds[0].files == builds[1].files
    large = [data for name, data in builds[0].sources.items() if name.endswith("json") and b"large cache" in data]
    assert bool(large) == arch.startswith("gfx")
