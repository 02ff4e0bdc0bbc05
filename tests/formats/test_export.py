"""What is written for other libraries, read back: by the library itself where it runs on a CPU, else by its rules."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from patterncc.cli.run import run
from patterncc.errors import UsageError
from patterncc.formats.exporting import export
from patterncc.language import Pattern, loads
from patterncc.reference import keeps

LENGTH = 300  # no multiple of a block, nor of FlexAttention's 128
HEAD = "pattern: 1\nname: mine\nheads: 4\nkv_heads: 2\nlayers: 2\nblock: 16\npromises: {}\ndense_layers: 1\n"
SHARED = "shards: [{heads: all, local: 3, stride: 4, offset: g}]\n"
EACH = "shards: [{heads: all, local: 40 tokens, sink: 3 tokens, stride: 4, offset: h}]\n"
DISTANCE = "shards: [{heads: all, local: 2, strides: [{every: 3, anchor: query}]}]\n"
TILED = HEAD.replace("16", "128") + "shards: [{heads: all, local: 1, stride: 2, offset: h}]\n"


def masks(pattern: Pattern, layer: int, length: int = LENGTH) -> torch.Tensor:
    t = np.arange(length)
    return torch.from_numpy(np.stack([keeps(pattern, layer, head, t, t) for head in range(pattern.heads)]))


def written(pattern: Pattern, target: str, folder: Path, length: int = LENGTH) -> ModuleType:
    for file, content in export(pattern, target, length).files.items():
        (folder / file).write_bytes(content)
    path = folder / f"{pattern.name}_{target}.py"
    spec = importlib.util.spec_from_file_location(f"exported_{target}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_length_is_written_as_a_number() -> None:
    code = export(loads(HEAD + SHARED), "flex", 4100).files["mine_flex.py"].decode()
    assert code.startswith('"""Pattern mine at 4,100 tokens') and "\nLENGTH = 4100\n" in code


@pytest.mark.parametrize("text", [SHARED, EACH, DISTANCE, "causal: false\n" + SHARED, "causal: false\n" + EACH])
def test_flex_attention(tmp_path: Path, text: str) -> None:
    """The whole rule by its mask_mod, and its lists equal to those that torch makes of that rule."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    pattern = loads(HEAD + text)
    module = written(pattern, "flex", tmp_path)
    q = torch.randn(1, 4, LENGTH, 16, dtype=torch.float64)
    k, v = (torch.randn(1, 2, LENGTH, 16, dtype=torch.float64) for _ in range(2))
    for layer in range(2):
        block_mask = module.block_mask(layer)
        expected = masks(pattern, layer)
        made = create_block_mask(block_mask.mask_mod, 1, 4, LENGTH, LENGTH, device="cpu", BLOCK_SIZE=128)
        assert (block_mask.to_dense() == made.to_dense()).all()
        t = torch.arange(LENGTH)
        kept = block_mask.mask_mod(0, torch.arange(4)[:, None, None], t[:, None], t)
        assert (kept == expected).all()
        out = flex_attention(q, k, v, block_mask=block_mask, enable_gqa=True)
        wide = (x.repeat_interleave(2, 1) for x in (k, v))
        dense = torch.nn.functional.scaled_dot_product_attention(q, *wide, attn_mask=expected)
        assert (out - dense).norm() < 1e-12 * dense.norm()  # both in float64


@pytest.mark.parametrize("text", [SHARED, EACH, DISTANCE, "causal: false\n" + EACH])
def test_torch_masks(tmp_path: Path, text: str) -> None:
    pattern = loads(HEAD + text)
    module = written(pattern, "torch", tmp_path)
    for layer in range(2):
        assert (module.attn_mask(layer)[0] == masks(pattern, layer)).all()


@pytest.mark.parametrize("text", [SHARED, "causal: false\n" + SHARED])
def test_flashmask_bounds(tmp_path: Path, text: str) -> None:
    """Row r of key u is masked when first <= r < last, on each side of the diagonal."""
    pattern = loads(HEAD + text)
    module = written(pattern, "flashmask", tmp_path)
    rows = torch.arange(LENGTH)
    for layer in range(2):
        bounds = module.startend_row_indices(layer)
        assert bounds.dtype == torch.int32 and bounds.shape == (1, 2, LENGTH, 2 if module.CAUSAL else 4)
        lower = (rows[:, None] >= bounds[0, :, None, :, 0]) & (rows[:, None] < bounds[0, :, None, :, 1])
        below = rows[:, None] >= rows
        kept = ~(lower & below)
        if module.CAUSAL:
            kept &= below
        else:
            upper = (rows[:, None] >= bounds[0, :, None, :, 2]) & (rows[:, None] < bounds[0, :, None, :, 3])
            kept &= ~(upper & ~below)
        assert (kept.repeat_interleave(2, 0) == masks(pattern, layer)).all()


@pytest.mark.parametrize("text", [SHARED, DISTANCE, "causal: false\n" + SHARED])
def test_flashinfer_rows(tmp_path: Path, text: str) -> None:
    pattern = loads(HEAD + text)
    module = written(pattern, "flashinfer", tmp_path, 320)
    for layer in range(2):
        kept = torch.zeros(2, 20, 20, 16, 16, dtype=torch.bool)
        for heads, pointers, columns, block, parts in module.plans(layer, "cpu"):
            assert block == 16 and pointers.dtype == columns.dtype == torch.int32
            for row in range(20):
                for n in range(int(pointers[row]), int(pointers[row + 1])):
                    kept[heads, row, columns[n].long()] = parts[n]
        tokens = kept.transpose(2, 3).reshape(2, 320, 320).repeat_interleave(2, 0)
        assert (tokens == masks(pattern, layer, 320)).all()


def test_lists_for_flash_attention_4(tmp_path: Path) -> None:
    pattern = loads(TILED)
    module = written(pattern, "fa4", tmp_path, 640)
    lists = module.lists(0, "cpu")
    whole, cut = (torch.zeros(4, 5, 5, dtype=torch.bool) for _ in range(2))
    for kept, name in ((whole, "full"), (cut, "mask")):
        for head in range(4):
            for row in range(5):
                count = int(lists[f"{name}_block_cnt"][0, head, row])
                kept[head, row, lists[f"{name}_block_idx"][0, head, row, :count].long()] = True
    tokens = (whole | cut).repeat_interleave(128, 1).repeat_interleave(128, 2).tril()
    assert module.CAUSAL and (tokens == masks(pattern, 0, 640)).all() and not (whole & cut).any()


@pytest.mark.parametrize(
    ("target", "text", "why"),
    [
        ("flashmask", HEAD + EACH, "KV head 0 of layer 0 has several"),
        ("flashinfer", HEAD + EACH, "KV head 0 of layer 0 has several"),
        ("flashmask", HEAD + DISTANCE, "is masked in several"),
        ("flashinfer", HEAD + SHARED, "no multiple of 16\n  help: take --length 304"),
        ("fa4", HEAD + SHARED, "kept in part"),
        ("flx", HEAD + SHARED, "`flx`"),
        ("flex", HEAD + "softcap: 50.0\n" + SHARED, "the pattern says `softcap`"),
        ("torch", HEAD + "scale: 0.25\n" + SHARED, "the pattern says `scale`"),
        ("torch", HEAD + "sinks: learned\n" + SHARED, "the pattern says `sinks`"),
    ],
)
def test_what_a_target_cannot_say_is_refused(target: str, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        export(loads(text), target, LENGTH)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "demo", "--to", "flex", "--length", "256", "-o", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [Path(file).name for file in document["files"]] == ["demo_flex.npz", "demo_flex.py"]
    assert all(Path(file).exists() for file in document["files"])
    assert run(["export", "demo", "--to", "flex", "--length", "10000000"]) == 2
    assert "too many to be written out" in capsys.readouterr().err


@pytest.mark.parametrize(("target", "said"), [("flex", "layers have 4 or 6 heads"), ("torch", "layers have 4 or 6")])
def test_layers_of_other_heads_are_refused(target: str, said: str) -> None:
    entry = "layouts: [{layers: 0, heads: 6, kv_heads: 3, shards: [{heads: all, local: 1}]}]\n"
    with pytest.raises(UsageError, match=said):
        export(loads(HEAD + entry), target, 64)


def test_layers_of_other_kv_heads_are_refused_where_a_kv_head_has_one_pattern() -> None:
    entry = "layouts: [{layers: 0, kv_heads: 4, shards: [{heads: all, local: 1}]}]\n"
    with pytest.raises(UsageError, match="query heads of a KV head are 1 or 2 here, by layer"):
        export(loads(HEAD + entry), "flashmask", 64)
    assert export(loads(HEAD + entry), "torch", 64).files
