"""Every Python block of the guides runs, block after block in one folder, as a reader would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = sorted((Path(__file__).parent.parent / "docs" / "guides").glob("*.md"))
NEEDS = {"transformers": "transformers", "vllm": "vllm", "megatron": "megatron.core"}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_a_guide_is_true(guide: Path, tmp_path: Path) -> None:
    if guide.stem in NEEDS:
        pytest.importorskip(NEEDS[guide.stem])
    blocks = re.findall(r"^```python\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.M | re.S)
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
