"""Masks of tokens that are saved as masks of blocks: a warning, and none where a mask is one of blocks."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from patterncc import language
from patterncc.language.token_masks import MaskWarning, token_level

HEAD = "pattern: 1\nname: m\nheads: 2\nblock: 16\npromises: {}\nshards: [{heads: all, mask: m.npy}]\n"
N = 64
T, U = np.arange(N)[:, None], np.arange(N)[None, :]
BLOCKS = np.random.default_rng(0).random((4, 4)) < 0.4

TOKENS = {
    "a window": (T >= U) & (T - U < 9),
    "both sides": abs(T - U) < 9,
    "with a sink": (T >= U) & ((T - U < 9) | (U < 4)),
    "tiles": np.kron(np.tril(BLOCKS) | np.eye(4, dtype=bool), np.ones((16, 16), bool)) & (T >= U),
    "tiles both ways": np.kron(BLOCKS | np.eye(4, dtype=bool), np.ones((16, 16), bool)),
    "two heads": np.stack([(T >= U) & (T - U < 9), (T >= U) & (T - U < 3)]),
}
OTHERS = {
    "everything before": T >= U,
    "a wide window": (T >= U) & (T - U < 20),
    "strided": (T >= U) & ((T - U < 4) | (U % 8 == 3)),
    "not square": ((T >= U) & (T - U < 9))[:40],
    "few rows": ((T >= U) & (T - U < 3))[:24, :24],
    "random": np.random.default_rng(1).random((N, N)) < 0.5,
    "one head of two": np.stack([(T >= U) & (T - U < 9), T >= U]),
}


def load(mask: np.ndarray, folder: Path) -> None:
    np.save(folder / "m.npy", mask)
    language.loads(HEAD, folder=folder)


@pytest.mark.parametrize("name", TOKENS)
def test_what_looks_like_tokens_is_warned_of(name: str, tmp_path: Path) -> None:
    with pytest.warns(MaskWarning, match=r"64 x 64 blocks, 1,024 tokens, past which nothing is kept.*import m.npy"):
        load(TOKENS[name], tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_blocks_are_taken_without_a_word(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(OTHERS[name], tmp_path)


def test_it_hangs_on_the_block() -> None:
    """A band of nine entries is less than a block of sixteen tokens, and more than one of eight."""
    assert token_level(TOKENS["a window"], "m.npy", 16) and not token_level(TOKENS["a window"], "m.npy", 8)
