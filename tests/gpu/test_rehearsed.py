"""The tests of both families as on a GPU, on the stub of one that is not there: every kernel is compiled for sm_90 and
launched, and the family that is asked for is taken. Nothing is computed, so what they find right is not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.stub.build import HERE as STUB
from tests.benchmarks.stub.build import driver
from tests.gpu.prepare import main

ROOT = Path(__file__).parents[2]
PLUGIN = """\
import torch

torch.Tensor.cuda = lambda self: self

def pytest_collection_finish(session):
    from tests.gpu import dense
    dense.error = lambda found, wanted: 0.0 if found.shape == wanted.shape else float("inf")
    torch.equal = lambda found, wanted: found.shape == wanted.shape
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcc") or sys.platform != "linux", reason="Triton's launcher needs gcc")
def test_both_families_are_launched(tmp_path: Path) -> None:
    folder, place = tmp_path / "folder", str(driver(tmp_path).parent)
    main(folder)
    (tmp_path / "rehearsed.py").write_text(PLUGIN)
    environment = os.environ | {"TRITON_LIBCUDA_PATH": place, "LD_LIBRARY_PATH": place, "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(STUB), str(ROOT), str(tmp_path)])}
    environment |= {"STUB_LAUNCHES": str(tmp_path / "launches"), "TRITON_CACHE_DIR": str(tmp_path / "compiled")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "rehearsed",
        "tests/gpu/test_families.py",
    ]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    launched = (tmp_path / "launches").read_text().split()
    assert {re.sub(r"_gpu_\w+", "", name) for name in launched} >= {
        "attn_fwd",
        "attn_fwd_hopper",
        "attn_bwd_dkdv_hopper",
    }
