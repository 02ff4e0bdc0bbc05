"""DeepSpeed's own layouts of blocks against what `import` makes of its `sparse_attention` section, in all five modes.

DeepSpeed removed them after 0.18.9: `pip install --no-deps deepspeed==0.18.9`, of which one file is read; it needs only
torch.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patterncc.formats.importing import import_pattern, write
from patterncc.language import load
from patterncc.reference import keeps

pytestmark = pytest.mark.peers
BLOCK, ROWS, HEADS = 16, 12, 4


@pytest.fixture(scope="module")
def deepspeed() -> Any:
    """The module of its configurations, without the package around it."""
    package = importlib.util.find_spec("deepspeed")
    for folder in package.submodule_search_locations or () if package else ():
        file = Path(folder) / "ops" / "sparse_attention" / "sparsity_config.py"
        if file.exists():
            spec = importlib.util.spec_from_file_location("deepspeed_sparsity_config", file)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    pytest.skip("needs deepspeed 0.18.9 or older")


CLASSES = {
    "dense": "DenseSparsityConfig",
    "fixed": "FixedSparsityConfig",
    "variable": "VariableSparsityConfig",
    "bigbird": "BigBirdSparsityConfig",
    "bslongformer": "BSLongformerSparsityConfig",
}
SECTIONS: list[dict[str, Any]] = [
    {"mode": "dense"},
    {"mode": "fixed", "num_local_blocks": 4, "num_global_blocks": 2},
    {"mode": "fixed", "num_local_blocks": 4, "different_layout_per_head": True, "num_different_global_patterns": 4},
    {"mode": "variable", "local_window_blocks": [3]},
    {"mode": "variable", "local_window_blocks": [2], "global_block_indices": [1, 5]},
    {"mode": "variable", "local_window_blocks": [4], "global_block_indices": [0], "global_block_end_indices": [2]},
    {"mode": "variable", "local_window_blocks": [3], "horizontal_global_attention": True},
    {"mode": "bigbird", "num_random_blocks": 0, "num_sliding_window_blocks": 5, "num_global_blocks": 2},
    {"mode": "bslongformer", "num_sliding_window_blocks": 5},
    {"mode": "bslongformer", "global_block_indices": [0, 7]},
    {"mode": "bslongformer", "global_block_indices": [1], "global_block_end_indices": [3]},
]


@pytest.mark.parametrize("attention", ["bidirectional", "unidirectional"])
@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: "-".join(map(str, section.values())))
def test_layouts(deepspeed: Any, tmp_path: Path, section: dict[str, Any], attention: str) -> None:
    if section.get("horizontal_global_attention") and attention == "unidirectional":
        pytest.skip("DeepSpeed refuses it")
    options = {key: value for key, value in section.items() if key != "mode"}
    if section["mode"] != "dense":
        options["attention"] = attention
    layout = getattr(deepspeed, CLASSES[section["mode"]])(HEADS, block=BLOCK, **options).make_layout(ROWS * BLOCK)
    source = tmp_path / "ds.json"
    source.write_text(json.dumps({"sparse_attention": section | options | {"block": BLOCK}}))
    write(import_pattern(str(source), heads=HEADS), tmp_path / "ds.yaml")
    pattern = load(tmp_path / "ds.yaml")
    t = np.arange(ROWS * BLOCK)
    ours = np.stack([keeps(pattern, 0, head, t, t) for head in range(HEADS)])
    theirs = np.asarray(layout, bool).repeat(BLOCK, 1).repeat(BLOCK, 2)
    if pattern.causal:  # its kernels cut the blocks of the diagonal
        theirs = np.tril(theirs)
    assert (ours == theirs).all(), np.argwhere(ours != theirs)[0].tolist()


@pytest.mark.parametrize("mode", ["variable", "bigbird"])
def test_random_blocks_are_as_many(deepspeed: Any, tmp_path: Path, mode: str) -> None:
    """Which blocks are drawn is each library's own affair; how many a row has beside the rest is not."""
    section = {"mode": mode, "num_random_blocks": 2, "block": BLOCK}
    source = tmp_path / "ds.json"
    source.write_text(json.dumps({"sparse_attention": section}))
    imported = import_pattern(str(source), heads=HEADS, length=ROWS * BLOCK)
    (mask,) = imported.masks.values()
    assert (mask.sum(-1) == 2).all()
    layout = getattr(deepspeed, CLASSES[mode])(HEADS, block=BLOCK, num_random_blocks=2).make_layout(ROWS * BLOCK)
    plain = getattr(deepspeed, CLASSES[mode])(HEADS, block=BLOCK, num_random_blocks=0).make_layout(ROWS * BLOCK)
    assert ((layout - plain).sum(-1) <= 2).all() and (layout - plain).sum() > 0
