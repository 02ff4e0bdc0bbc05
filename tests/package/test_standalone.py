"""An exported package alone in a process: without patterncc, without triton, and with little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import patterncc
from tests.package.made import PATTERNS

# Each test has a cache of its own: in one for all, two folders' files named `small` are warned of.
pytestmark = pytest.mark.usefixtures("fresh_cache")
BLOCKER = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
"""
USE = """
import torch, small
torch.manual_seed(0)
q, k, v = (torch.randn(2, n, 130, 16, requires_grad=True) for n in (4, 2, 2))
out, lse = small.attention(q, k, v, return_lse=True)
mask = small.dense_mask(130)
bias = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
true = torch.nn.functional.scaled_dot_product_attention(q, *(x.repeat_interleave(2, 1) for x in (k, v)), attn_mask=bias)
assert torch.allclose(out, true, atol=1e-5), (out - true).abs().max()
(out.sum() + lse.sum()).backward()
assert all(x.grad.isfinite().all() for x in (q, k, v))
cache = small.KVCache(2)
with torch.no_grad():
    stepped = torch.cat([cache.step(*(x[:, :, n : n + 65] for x in (q, k, v))) for n in (0, 65)], 2)
assert torch.allclose(stepped, true, atol=1e-5)
assert small.PATTERN["name"] == "small"
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module}
assert "patterncc" not in loaded and "codegen_templates" not in loaded and "yaml" not in loaded
"""


def exported(tmp_path: Path, name: str = "strided") -> Path:
    (tmp_path / "small.yaml").write_text(PATTERNS[name])
    return patterncc.compile(tmp_path / "small.yaml", output=tmp_path / "out").path.parent


def python(code: str, folder: Path) -> str:
    """Run code where only `folder` and the installed libraries can be imported; what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


NO_KERNELS = """
import os
os.environ["TRITON_INTERPRET"] = "1"  # asks for kernels
try:
    small.attention(q, k, v)
except RuntimeError as error:
    print(error)
"""


def test_it_runs_without_patterncc(tmp_path: Path) -> None:
    """Nor anything else but torch, triton and the standard library: attention, gradients, cache and mask work."""
    blocked = ["patterncc", "codegen_templates", "numpy", "pydantic", "yaml", "rich", "typer"]
    python(BLOCKER.format(blocked=blocked) + USE, exported(tmp_path))


def test_it_runs_without_triton(tmp_path: Path) -> None:
    """All of it; and who then asks for kernels is told what is missing. The message also proves that it is blocked."""
    said = python(BLOCKER.format(blocked=["triton", "patterncc"]) + USE + NO_KERNELS, exported(tmp_path))
    assert "small: attention on cpu needs triton, which cannot be imported" in said


MEMORY = """
import resource, torch, small
q, k, v = (torch.randn(1, n, {length}, 16) for n in (4, 2, 2))
small.attention(q[:, :, :256], k[:, :, :256], v[:, :, :256])  # libraries and threads are there
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out = small.attention(q, k, v)
if {dense}:
    scores = torch.empty(4, {length}, {length}, dtype=torch.bool).fill_(True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux")
@pytest.mark.parametrize("dense", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["kept", "control"])
def test_memory_of_a_long_forward(dense: bool, tmp_path: Path) -> None:
    """16k tokens, 4 heads: the dense mask alone is 1 GiB (bool), the scores 4 GiB. A fourth of the blocks is kept, and
    worked on in steps: the peak stays below an eighth of the mask. The control also allocates the mask and is above, by
    how much depends on what a full machine leaves resident."""
    peak = int(python(MEMORY.format(length=16384, dense=dense), exported(tmp_path)))
    assert (peak >= 128) is dense, f"{peak} MiB"
