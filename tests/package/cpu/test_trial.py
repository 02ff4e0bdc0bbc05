"""The trial that a built library must pass, and faults that it must find."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")


SOURCES = Path(__file__).parents[3] / "codegen_templates/cpu/c"


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
