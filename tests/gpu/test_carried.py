"""Triton's cache, packed in one folder and found in another: what was compiled there is not compiled again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu import carried, lease

COMPILED = """\
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

@triton.jit
def copy(x, y, n, ROWS: tl.constexpr):
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tl.store(y + place, tl.load(x + place, mask=place < n), mask=place < n)

stages = []
triton.knobs.compilation.listener = lambda times, **_: stages.extend(name for name, _ in times.lowering_stages)
source = ASTSource(copy, {"x": "*bf16", "y": "*bf16", "n": "i32"}, {"ROWS": 64})
made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
print(len(stages), made.metadata.name, len(made.kernel))
"""


def compiled(script: Path, cache: Path) -> list[str]:
    """How many steps compiling took, 0 where it was found; the kernel's name, and the bytes of its binary."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_was_compiled_elsewhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    (tmp_path / "kernel.py").write_text(COMPILED)
    first, *rest = compiled(tmp_path / "kernel.py", tmp_path / "here")
    assert int(first) > 1 and rest[0] == "copy"
    assert carried.pack(tmp_path / "here", tmp_path / carried.FILE) == 1
    (tmp_path / "here").rename(tmp_path / "gone")
    monkeypatch.setattr(lease, "FOLDER", tmp_path)
    cache = lease.compiled()
    assert compiled(tmp_path / "kernel.py", cache) == ["0", *rest]
    assert {path.suffix for path in cache.glob("*/*")} == {".cubin", ".json"}
    [group] = cache.glob("*/__grp__*.json")
    assert all(Path(path).is_file() for path in json.loads(group.read_text())["child_paths"].values())


def test_a_file_that_is_broken_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "FOLDER", tmp_path)
    assert lease.compiled().parent == tmp_path / lease.CACHES and not capsys.readouterr().out
    (tmp_path / carried.FILE).write_bytes(b"\xfd7zXZ\x00 and then nothing of it")
    assert lease.compiled().name == "TRITON_CACHE_DIR"
    assert "all is compiled here" in capsys.readouterr().out
