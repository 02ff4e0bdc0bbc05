"""What the compact cache refuses: lengths, entries and sizes that are wrong, and tokens for which there is no room."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.package.made import compiled


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ([1, 1, 1], r"lengths must be \[2\], one for each entry"),
        ([1, 4], r"lengths\[1\] is 4, and 3 tokens come"),
        ([-1, 3], r"lengths\[0\] is -1, and 3 tokens come"),
        ([1.0, 2.0], r"whole numbers \[2\], how many of the 3 tokens"),
        ([True, False], "whole numbers"),
        ([[1, 2]], "whole numbers"),
        (2, "whole numbers"),
    ],
)
def test_wrong_lengths_are_said_and_change_nothing(lengths: Any, said: str) -> None:
    _, package = compiled("strided")
    cache = package.KVCache(2)
    tokens = [torch.zeros(2, heads, 3, 16) for heads in (4, 2, 2)]
    for form in (lengths, torch.tensor(lengths)):
        with pytest.raises(ValueError, match=said):
            cache.step(*tokens, lengths=form)
    assert cache.lengths.tolist() == [0, 0] and cache.bytes == 0


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ([2], r"index\[0\] is 2; the cache has 2 entries"),
        ([0, -2], r"index\[1\] is -2"),
        ([True, False], "whole numbers"),
    ],
)
def test_wrong_entries_are_said(index: Any, said: str) -> None:
    _, package = compiled("strided")
    with pytest.raises(ValueError, match=said):
        package.KVCache(2).fork(torch.tensor(index))


def test_wrong_sizes_are_said() -> None:
    _, package = compiled("strided")
    with pytest.raises(ValueError, match="max_length is a number of tokens"):
        package.KVCache(1, max_length=-1)
    with pytest.raises(ValueError, match="batch is the number of sequences"):
        package.KVCache(-1)
    cache = package.KVCache(1, max_length=0)
    assert cache.step(*(torch.zeros(1, heads, 0, 16) for heads in (4, 2, 2))).shape == (1, 4, 0, 16)
    with pytest.raises(ValueError, match="0 tokens are cached and 1 come"):
        cache.step(*(torch.zeros(1, heads, 1, 16) for heads in (4, 2, 2)))


def test_one_entry_too_long_is_refused_before_anything_is_stored() -> None:
    _, package = compiled("strided")
    cache = package.KVCache(2, max_length=10)
    cache.step(*(torch.zeros(2, heads, 9, 16) for heads in (4, 2, 2)), lengths=[4, 9])
    with pytest.raises(ValueError, match="9 tokens are cached and 2 come: more than max_length=10"):
        cache.step(*(torch.zeros(2, heads, 5, 16) for heads in (4, 2, 2)), lengths=[5, 2])
    cache.step(*(torch.zeros(2, heads, 5, 16) for heads in (4, 2, 2)), lengths=[5, 1])
    assert cache.lengths.tolist() == [9, 10]
