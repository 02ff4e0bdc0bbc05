"""attention_split under FSDP2 on two gloo ranks, of a device mesh, equals one process: outputs and gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "run_fsdp.py"


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch has no gloo here")
def test_fully_shard_and_a_split_context(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run([*command, str(tmp_path / "rank")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        result = torch.load(tmp_path / f"rank.{rank}")
        assert result["output"] < 1e-5  # float32, two layers of numbers of order one
        assert max(result["gradients"]) < 1e-5
        assert result["sharded"] == [0.5] * 4  # each rank holds half of every weight
