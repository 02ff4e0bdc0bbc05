"""tp_plan="auto" on two ranks equals one process: each rank's heads keep the pattern of their global numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integrations.transformers.conftest import FAMILIES, TEXT

pytestmark = pytest.mark.peers
SCRIPT = Path(__file__).parent / "run_ranks.py"
TOLERANCE = 2e-5  # largest difference of logits near 1 in float32, through three layers


@pytest.mark.parametrize("name", ["llama", pytest.param("gpt_oss", marks=pytest.mark.slow)])
def test_two_ranks_equal_one(build: Any, tmp_path: Path, name: str) -> None:
    """Also where each head has a sink of its own. Another offset for each head, so that a rank that took its first head
    for head 0 would be far off."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("torch has no gloo here")
    from patterncc.integrations.transformers import register

    family, said, changes = FAMILIES[name]
    pattern = tmp_path / f"{name}.yaml"
    text = TEXT.split("shards:")[0] + said if said else TEXT
    pattern.write_text(text.replace("name: tiny", f"name: {name}"))
    model = build(family, **changes)
    model.save_pretrained(tmp_path / "model")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    command += [str(tmp_path / "model"), str(pattern), str(tmp_path / "rank")]
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    model.set_attn_implementation(register(pattern))
    tokens = torch.randint(3, 97, (2, 85), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        alone = model(tokens, use_cache=False).logits
        expected = model.generate(tokens, max_new_tokens=5, do_sample=False)
    for rank in range(2):
        result = torch.load(tmp_path / f"rank.{rank}")
        assert result["heads"] == 2 or name == "gpt_oss"  # whose heads newer versions leave whole
        assert (result["logits"] - alone).abs().max() < TOLERANCE
        assert torch.equal(result["tokens"], expected)
