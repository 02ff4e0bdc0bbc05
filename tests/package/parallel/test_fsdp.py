"""Training with parameters sharded over two processes (FSDP2, gloo) equals training in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import patterncc
from tests.package.made import PATTERNS


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each has half of the batch: the mean of their losses is that of the whole one, at each of four steps, where it
    falls. 1e-5: gradients are averaged in fp32 in another order."""
    (tmp_path / "small.yaml").write_text(PATTERNS["strided"])
    patterncc.compile(tmp_path / "small.yaml", output=tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("fsdp_rank.py")), str(tmp_path)]
    processes = [subprocess.Popen([*command, rank], env=environment) for rank in ("0", "1", "-1")]
    try:
        assert [process.wait(timeout=240) for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
    whole, *ranks = (torch.tensor(torch.load(tmp_path / f"{name}.pt")) for name in ("whole", "rank0", "rank1"))
    assert (torch.stack(ranks).mean(0) - whole).abs().max() <= 1e-5 * whole[0]
    assert whole[-1] < whole[0] * 0.999
