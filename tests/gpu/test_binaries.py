"""First calls on a real GPU: of a package with binaries they compile nothing, and give the bits of one without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

PATTERN = """\
pattern: 1
name: first_calls
heads: 8
kv_heads: 2
head_dim: 64
block: 64
shards: [{heads: all, local: 2, stride: 4, offset: h}]
promises: {}
"""
FIRST = """\
import json, sys, time, warnings
import torch
sys.path.insert(0, sys.argv[1])
import first_calls
torch.manual_seed(0)
q, k, v = (torch.randn(1, n, 1000, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for n in (8, 2, 2))
cache = [torch.randn(64, 64, 2, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
table, lens = (torch.tensor(x, dtype=torch.int32, device="cuda") for x in ([list(range(64))], [4000]))
torch.cuda.synchronize()
start = time.perf_counter()
with warnings.catch_warnings(record=True) as notes:
    warnings.simplefilter("always")
    out = first_calls.attention(q, k, v)
    out.backward(torch.ones_like(out))
    step = first_calls.decode(q.detach()[:, :, 0][:, None].contiguous(), *cache, table, lens)
    held = first_calls.KVCache(1, dtype=torch.bfloat16, device="cuda")
    first, *_, last = [held.step(*(x.detach()[:, :, n : n + 1] for x in (q, k, v))) for n in range(200)]
    torch.cuda.synchronize()
taken = time.perf_counter() - start
torch.save([x.detach().cpu() for x in (out, q.grad, k.grad, v.grad, step, first, last)], sys.argv[2])
print(json.dumps({"taken": taken, "notes": [str(x.message) for x in notes if x.category is RuntimeWarning]}))
"""


def first_calls(folder: Path, triton_cache: Path) -> dict[str, Any]:
    """In a process of its own, with nothing compiled before: seconds, notes, results, how much was compiled."""
    results = triton_cache.with_suffix(".pt")
    environment = os.environ | {"TRITON_CACHE_DIR": str(triton_cache)}
    command = [sys.executable, "-c", FIRST, str(folder), str(results)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compiled = [path.name for end in ("cubin", "hsaco") for path in triton_cache.rglob(f"attn_*.{end}")]
    return {**json.loads(done.stdout.splitlines()[-1]), "results": torch.load(results), "compiled": compiled}


@pytest.mark.gpu
def test_first_calls_compile_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patterncc = pytest.importorskip("patterncc", reason="binaries are made by patterncc, with the Triton that is here")
    pytest.importorskip("pydantic")
    file = tmp_path / "first_calls.yaml"
    file.write_text(PATTERN)
    plain = patterncc.compile(file, output=tmp_path / "plain")
    arch = import_module(f"{plain.load().__name__}.launch.requests").arch(torch.device("cuda"))
    patterncc.compile(file, output=tmp_path / "shipped", binaries=[arch], dtype="bf16")
    jit = first_calls(tmp_path / "plain", tmp_path / "jit")
    own = first_calls(tmp_path / "shipped", tmp_path / "own")
    with capsys.disabled():
        print(f"first calls: {own['taken']:.3f} s with binaries, {jit['taken']:.3f} s without")
    assert own["notes"] == own["compiled"] == [] and len(jit["compiled"]) >= 5
    for x, y in zip(own["results"], jit["results"], strict=True):
        assert torch.equal(x, y)
