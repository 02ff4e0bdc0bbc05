"""Masks and mask functions, imported: rules are found again, what none explains stays a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patterncc import reference
from patterncc.cli.run import run
from patterncc.errors import UsageError
from patterncc.formats.importing import import_pattern, write
from patterncc.formats.infer import infer
from patterncc.formats.rules import Shape, to_yaml
from patterncc.language import load, loads
from tests.formats.imported import mask_of

SHARDS = [
    "dense: true",
    "local: 3",
    "local: 20 tokens",
    "{local: 3, sink: 1}",
    "{local: 2, stride: 4, offset: h}",
    "{local: 40 tokens, stride: 4, offset: h, sink: 3 tokens}",
    "{local: 2, sink: 2, stride: 4, offset: 3, width: 2}",
    "{local: 1, strides: [{every: 3, anchor: query}]}",
    "{local: 1, globals: {columns: [0, 3, 5]}}",
]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shard", SHARDS)
def test_rules_are_found_again(shard: str, causal: bool) -> None:
    """Equal over the sample, and beyond it: the rule was found, not the sample copied."""
    body = shard.strip("{}") if not shard.startswith("{") else shard[1:-1]
    head = f"pattern: 1\nname: x\nheads: 4\nblock: 16\ncausal: {str(causal).lower()}\npromises: {{}}\n"
    pattern = loads(f"{head}shards: [{{heads: all, {body}}}]\n")
    mask = mask_of(pattern, 14 * 16 + 5)
    found = infer(mask)
    assert found is not None and found.explained
    again = loads(to_yaml(Shape("y", "", 4, 4, 128, 1, found.block, found.causal), [found.rules]))
    assert (mask_of(again, 500) == mask_of(pattern, 500)).all()


def test_what_no_rule_explains_stays_a_mask(tmp_path: Path) -> None:
    kept = np.tril(np.random.default_rng(3).random((2, 9, 9)) < 0.5)
    np.save(tmp_path / "drawn.npy", kept)
    imported = import_pattern(str(tmp_path / "drawn.npy"), block=32)
    write(imported, tmp_path / "drawn_pattern.yaml")
    pattern = load(tmp_path / "drawn_pattern.yaml")
    assert pattern.block == 32 and any("no rule explains" in note for note in imported.notes)
    assert (mask_of(pattern, 288) == np.tril(kept.repeat(32, 1).repeat(32, 2))).all()


def test_a_mask_that_could_be_either_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t = np.arange(256)
    np.save(tmp_path / "window.npy", (t[:, None] >= t) & (t[:, None] - t < 10))
    assert run(["import", str(tmp_path / "window.npy")]) == 2
    assert "--level token" in capsys.readouterr().err
    for level, key in (("token", "local_tokens"), ("block", "local")):
        assert run(["import", str(tmp_path / "window.npy"), "--level", level, "-o", str(tmp_path / "w.yaml")]) == 0
        reach = getattr(load(tmp_path / "w.yaml").shard(0, 0), key)
        assert reach is not None and reach[0] == 10


def test_a_token_mask_is_told_from_a_block_mask(tmp_path: Path) -> None:
    pattern = loads(
        "pattern: 1\nname: x\nheads: 2\nblock: 16\nshards: [{heads: all, local: 1, stride: 4, offset: h}]\n"
    )
    np.save(tmp_path / "tokens.npy", mask_of(pattern, 256))
    imported = import_pattern(str(tmp_path / "tokens.npy"))
    assert (mask_of(loads(imported.yaml), 320) == mask_of(pattern, 320)).all()
    assert any("mask of tokens" in note for note in imported.notes)


@pytest.mark.parametrize(("level", "count", "block"), [("token", 160, 16), ("block", 6, 32)])
def test_layers_of_which_only_some_look_ahead(level: str, count: int, block: int, tmp_path: Path) -> None:
    """The pattern is not causal then, and a layer that looks back alone keeps nothing ahead all the same."""
    t = np.arange(count)
    mask = np.stack([np.ones((2, count, count), bool), np.broadcast_to(t[:, None] >= t, (2, count, count))])
    np.save(tmp_path / "both.npy", mask)
    imported = import_pattern(str(tmp_path / "both.npy"), level=level, block=block)
    write(imported, tmp_path / "both.yaml")
    pattern = load(tmp_path / "both.yaml")
    scale = 1 if level == "token" else block
    for layer in range(2):
        found = reference.dense_mask(pattern, layer, count * scale).numpy()
        assert (found == mask[layer].repeat(scale, 1).repeat(scale, 2)).all()


def test_layers_of_which_some_look_like_tokens_and_others_like_blocks(tmp_path: Path) -> None:
    text = "pattern: 1\nname: x\nheads: 2\nblock: 16\nshards: [{heads: all, local: 1, stride: 4, offset: h}]\n"
    drawn = np.tril(np.random.default_rng(3).random((2, 256, 256)) < 0.5)
    np.save(tmp_path / "both.npy", np.stack([mask_of(loads(text), 256), drawn]))
    with pytest.raises(UsageError, match="some layers of this mask look like"):
        import_pattern(str(tmp_path / "both.npy"), block=16)


MODULE = """
def strided(b, h, q, k):
    return (q >= k) & ((q // 64 - k // 64 < 4) | (k // 64 % 4 == h))

def changes(b, h, q, k):
    return (q >= k) & ((q - k < 100) | (q > 1500))
"""


def test_mask_mods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "masks_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    imported = import_pattern("masks_of_mine:strided", heads=4)
    pattern = loads(imported.yaml)
    assert (pattern.shard(0, 2).strides[0].every, pattern.shard(0, 2).strides[0].offset) == (4, 2)
    with pytest.raises(UsageError, match="what holds for 1,024 tokens fails at query"):
        import_pattern("masks_of_mine:changes")
    with pytest.raises(UsageError, match="cannot be imported"):
        import_pattern("masks_of_mine:nothing")
