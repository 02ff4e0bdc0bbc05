"""Rules found in masks: they equal the mask, and equal the pattern that the mask was drawn from past its end, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterncc.formats.importing import import_pattern, write
from patterncc.formats.infer import Inferred, infer, infer_blocks
from patterncc.formats.rules import Shape, to_yaml
from patterncc.language import load, loads
from patterncc.pipeline import compile
from patterncc.reference import keeps

T = np.arange(1024)
Q, K = T[:, None], T[None]
PAST = Q >= K


def said(found: Inferred, length: int) -> np.ndarray:
    """The mask [length, length] of what was found, by the reference."""
    heads = len(found.rules)
    shape = Shape("found", "", heads, heads, 64, 1, found.block, found.causal)
    t = np.arange(length)
    return keeps(loads(to_yaml(shape, [found.rules])), 0, 0, t, t)


@pytest.mark.parametrize(
    ("mask", "rule"),
    [
        (Q // 256 == K // 256, "chunk: 2"),  # in whole blocks of 128
        (Q // 640 == K // 640, "chunk: 5"),
        (Q // 48 == K // 48, "chunk: 3"),  # in blocks of 16
        ((Q // 256 == K // 256) | (Q - K < 32), "chunk: 2|local: 32 tokens"),
        ((Q // 128 == K // 128) | (Q - K < 33), "local: 33 tokens|strides: [{every: 1, to: 1}]\n"),
        ((Q // 256 == K // 256) | (K < 5), "sink: 5 tokens|chunk: 256 tokens"),
        (
            (Q - K < 128) | (K < 64) | (K // 64 % 4 == 2),
            "local: 128 tokens|sink: 1|stride: 4\n    offset: 2",
        ),  # no more
        ((Q // 64 == K // 64) | (K // 64 % 4 == 1), "local: 1|stride: 4"),  # no chunk where none is needed
    ],
)
def test_chunks_beside_windows_and_sinks(mask: np.ndarray, rule: str) -> None:
    found = infer((mask & PAST)[None])
    assert found is not None and found.explained
    text = to_yaml(Shape("found", "", 1, 1, 64, 1, found.block, True), [found.rules])
    assert all(f"    {part}" in text for part in rule.split("|")), text
    assert (said(found, 1024) == (mask & PAST)).all()


@pytest.mark.parametrize(
    ("mask", "promised"),
    [
        (np.tril(np.ones((8, 8), bool)), "{rows: nonempty}"),
        (np.zeros((8, 8), bool), "{}"),  # in a mask file, since no part keeps nothing
        (
            np.tril(np.random.default_rng(0).random((8, 8)) < 0.5) | np.eye(8, dtype=bool),
            "{}",
        ),  # rows past it are empty
        (np.tril(np.arange(8) % 2 == np.zeros((8, 1))), "{}"),
    ],
)
def test_an_imported_mask_promises_what_it_holds(
    tmp_path: Path, fresh_cache: Path, mask: np.ndarray, promised: str
) -> None:
    np.save(tmp_path / "one.npy", mask)
    imported = import_pattern(str(tmp_path / "one.npy"), level="block", block=16)
    write(imported, tmp_path / "one.yaml")
    assert f"promises: {promised}\n" in imported.yaml
    pattern = load(tmp_path / "one.yaml")
    assert (keeps(pattern, 0, 0, np.arange(15, 128, 16), np.arange(0, 128, 16)) == mask).all()
    compile(tmp_path / "one.yaml")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_found_in_tokens_is_the_mask(data: st.DataObject) -> None:
    draw = data.draw
    length = draw(st.integers(100, 400))
    t = np.arange(length)
    q, k = t[:, None], t[None]
    block = draw(st.sampled_from([16, 32]))
    mask = np.zeros((length, length), bool)
    if draw(st.booleans()):
        mask |= np.abs(q - k) < draw(st.integers(1, 90))
    if draw(st.booleans()):
        size = draw(st.integers(1, 8)) * block
        mask |= q // size == k // size
    if draw(st.booleans()):
        mask |= k < draw(st.integers(1, 40))
    if draw(st.booleans()):
        mask |= np.abs(q // block - k // block) < draw(st.integers(1, 3))
    if draw(st.booleans()):
        every = draw(st.integers(2, 4))
        mask |= k // block % every == draw(st.integers(0, every - 1))
    causal = draw(st.booleans())
    mask = mask & (q >= k) if causal else mask
    found = infer(mask[None], causal)
    if found is not None and found.explained:
        assert (said(found, length) == mask).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_found_in_blocks_is_the_mask(data: st.DataObject) -> None:
    draw = data.draw
    count = draw(st.integers(4, 24))
    i = np.arange(count)
    d = i[:, None] - i
    mask = np.abs(d) < draw(st.integers(0, 5))
    if draw(st.booleans()):
        size = draw(st.integers(1, 7))
        mask |= i[:, None] // size == i // size
    if draw(st.booleans()):
        mask |= i < draw(st.integers(1, 3))
    if draw(st.booleans()):
        mask |= (i if draw(st.booleans()) else np.abs(d)) % draw(st.integers(2, 5)) == 1
    causal = draw(st.booleans())
    mask = mask & (d >= 0) if causal else mask
    found = infer_blocks(mask[None], 16, causal)
    if found.explained:
        blocks = said(found, 16 * count)[::16, ::16] if not causal else said(found, 16 * count)[15::16, ::16]
        assert (blocks == mask).all()
