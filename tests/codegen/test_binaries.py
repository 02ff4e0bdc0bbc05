"""Packages with binaries: first calls compile nothing, what does not match is left to the JIT and said.

A stub driver stands for the GPU (stub_gpu.py), one process for all that is tried.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patterncc.pipeline import Compiled
from tests.codegen.shipped import CACHES, COMBINE, KERNELS, Once, environment, flip

triton = pytest.importorskip("triton")


def altered(compiled: Compiled, name: str, alter: Callable[[Path], object]) -> Path:
    """A copy of the package with something else in it."""
    folder = compiled.path.parents[1] / name
    shutil.copytree(compiled.path, folder)
    alter(folder)
    return folder


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
    assert {digest for _, digest, _ in own["loaded"]} <= shipped and len(own["loaded"]) == 18
    assert len({digest for _, digest, _ in own["loaded"]}) == 18 and len(own["launched"]) == 56
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
        ("other backend", KERNELS - CACHES | {COMBINE}, ["they are built for sm_90, here is gfx942"]),
        ("not aligned", {"attn_fwd_small", "attn_bwd_dq_small", "attn_bwd_dkdv_small"}, ["q *fp16 (not *fp16 div"] * 3),
        ("few", {"attn_fwd_small"}, ["BLOCK_Q 8 (not 1)"]),
        (
            "other dtype",
            KERNELS - {"attn_bwd_round_small"},  # sums of float32 are results as they are
            [f"{x} *fp32 divisible by 16 (not *fp16 divi" for x in ("q", "out", "q", "q", "dk", "k", "q")],
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
