"""The Hopper kernels launched as on a GPU: Triton's own launcher, on the stub of a driver. Nothing is computed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import patterncc
from patterncc.codegen.resources import quiet_environment
from tests.benchmarks.stub.build import HERE as STUB
from tests.benchmarks.stub.build import driver

ROOT = Path(__file__).parents[2]
TEXT = "pattern: 1\nname: stubbed\nheads: 4\nkv_heads: 2\nhead_dim: 128\nblock: 64\npromises: {}\n"


RULES = {
    "arithmetic": "local: 2, stride: 4, offset: h",
    "table": "local: 70 tokens, random: {blocks: 2, seed: h}",
}


@pytest.mark.slow
@pytest.mark.parametrize(("form", "family"), [("arithmetic", "gluon"), ("table", "gluon"), ("arithmetic", "fused")])
@pytest.mark.skipif(not shutil.which("gcc") or sys.platform != "linux", reason="Triton's launcher needs gcc")
def test_training_launches_the_family_that_is_asked_for(form: str, family: str, tmp_path: Path) -> None:
    (tmp_path / "stubbed.yaml").write_text(f"{TEXT}shards: [{{heads: all, {RULES[form]}}}]")
    patterncc.compile(tmp_path / "stubbed.yaml", output=tmp_path)
    place, launches = str(driver(tmp_path).parent), tmp_path / "launches"
    environment = quiet_environment() | {"TRITON_LIBCUDA_PATH": place, "LD_LIBRARY_PATH": place}
    paths = [str(STUB), str(ROOT), environment["PYTHONPATH"]]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "STUB_LAUNCHES": str(launches)}
    command = [sys.executable, "-m", "tests.gluon.launched", str(tmp_path), "stubbed", family]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    once = ["fwd_hopper", "bwd_prepare", "bwd_dq_hopper", "bwd_dkdv_hopper"]
    packed = ["clear", "fwd_hopper", "bwd_prepare", "clear", "bwd_dq_hopper", "clear", "clear", "bwd_dkdv_hopper"]
    if family == "fused":  # what is packed is not
        once = ["fwd_hopper", "bwd_prepare", "bwd_fused_begin", "bwd_fused_hopper", "bwd_fused_end"]
    if form == "arithmetic":  # of strides there are parts, and a second round, which adds in float32
        once, packed = [*once, "bwd_sum"], [*packed, "bwd_dkdv_hopper", "bwd_round", "bwd_round"]
    assert launches.read_text().split() == [f"attn_{name}_stubbed" for name in once + packed]
