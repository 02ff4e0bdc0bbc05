"""Binaries as files of a package: which there are, what is in them, and which options ask for them."""

from __future__ import annotations

import doctest
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import patterncc
from patterncc import cli
from patterncc.codegen.binaries import ship_binaries
from patterncc.codegen.package import GeneratedPackage
from patterncc.codegen.template import templates
from patterncc.language import loads
from patterncc.pipeline import Compiled, generate
from patterncc.runtime.cache import Cache, CacheWarning
from tests.codegen.shipped import COMBINE, KERNELS, ROOT, TEXT, environment, flip

triton = pytest.importorskip("triton")


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
    assert len(files) == 2 * 31 + 1
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
    assert document["binaries"]["triton"] == triton.__version__ and len(document["kernels"]) == 31
    assert {(kernel["arch"], kernel["kernel"].split()[0]) for kernel in document["kernels"]} == {
        ("sm_90", kernel) for kernel in KERNELS | {COMBINE}
    }
    assert cli.main(asked) == 0
    assert f"31 binaries for sm_90 (fp16, triton {triton.__version__})" in capsys.readouterr().out
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
    """Binaries are not loaded for kernels that were edited: each file with a function of theirs is named. Those
    of the Hopper family are not shipped."""
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
