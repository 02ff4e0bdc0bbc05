"""DeepSpeed's sparse attention, imported: equal to its modes by masks that are written down here again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from patterncc.formats.importing import import_pattern, write
from patterncc.language import load
from tests.formats.imported import mask_of, read


def deepspeed(section: dict, rows: int, causal: bool) -> np.ndarray:
    """The layout of blocks that DeepSpeed's documentation describes, for whole windows and without random blocks."""
    i, j = np.arange(rows)[:, None], np.arange(rows)[None]
    mode = section["mode"]
    if mode == "fixed":
        n, g = section.get("num_local_blocks", 4), section.get("num_global_blocks", 1)
        kept = (i // n == j // n) | ((j % n >= n - g) & (j % n < n))
    elif mode == "variable":
        n = section["local_window_blocks"][0]
        kept = (i // n == j // n) | (j == 0)
    else:
        reach = section.get("num_sliding_window_blocks", 3) // 2
        kept = (abs(i - j) <= reach) | (j == 0) | ((i == 0) & (not causal))
    return kept & (i >= j) if causal else kept


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "section",
    [
        {"mode": "bslongformer", "num_sliding_window_blocks": 5},
        {"mode": "fixed", "num_local_blocks": 4, "num_global_blocks": 2},
        {"mode": "variable", "local_window_blocks": [3]},
        {"mode": "bigbird", "num_random_blocks": 0},
    ],
)
def test_deepspeed_modes(tmp_path: Path, section: dict, causal: bool) -> None:
    section = section | {"block": 16, "attention": "unidirectional" if causal else "bidirectional"}
    if section["mode"] == "bigbird":
        section.pop("num_random_blocks")
        section["num_random_blocks"] = 1
        source = tmp_path / "d.json"
        source.write_text(json.dumps({"sparse_attention": section}))
        imported = import_pattern(str(source), length=192)
        (file, drawn), *_ = imported.masks.items()
        assert (drawn.sum(1) == 1).all() and not (causal and np.triu(drawn, 1).any())
        write(imported, tmp_path / "d.yaml")
        expected = deepspeed(section, 12, causal) | drawn
        pattern = load(tmp_path / "d.yaml")
        assert file.endswith("_random.npy")
    else:
        pattern = read(tmp_path, {"sparse_attention": section})
        expected = deepspeed(section, 12, causal)
    tokens = expected.repeat(16, 0).repeat(16, 1)
    assert (mask_of(pattern, 192) == (np.tril(tokens) if causal else tokens)).all()


def test_deepspeeds_global_rows_are_global_below_the_diagonal_too(tmp_path: Path) -> None:
    section = {"mode": "bslongformer", "attention": "unidirectional", "global_block_indices": [5], "block": 16}
    pattern = read(tmp_path, {"sparse_attention": section})
    assert mask_of(pattern, 128)[0, 5 * 16 + 3, : 5 * 16 + 4].all()
    assert not mask_of(pattern, 128)[0, 7 * 16, 0]
