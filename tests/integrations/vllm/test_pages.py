"""When pages die, held against dense masks, and what a request holds, held against a scheduler played step by step."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

import patterncc
from patterncc.integrations.vllm.pages import Pages, kinds_of_layers, pages_of
from patterncc.language import loads
from patterncc.reference import keeps

HEADS, LAYERS, END = 4, 3, 700
SHARDS = {
    "stride": "{heads: all, local: 2, stride: 4, offset: 3}",
    "heads": "{heads: all, local: 2, stride: 8, offset: g}",
    "tokens": "{heads: all, local: 40 tokens, sink: 5 tokens}",
    "chunk": "{heads: all, chunk: 5}",
    "dense": "{heads: all, dense: true}",
}


def text(shard: str, dense: str = "") -> str:
    return (
        f"pattern: 1\nname: dying\nheads: {HEADS}\nkv_heads: 2\nhead_dim: 16\nlayers: {LAYERS}\nblock: 16\n"
        f"shards: [{SHARDS[shard]}]\npromises: {{}}\n{dense}"
    )


def read_later(source: str, layers: tuple[int, ...]) -> np.ndarray:
    """bool [length, key]: whether a query at `length` or later, below END, attends the key. By the definition."""
    pattern, t = loads(source), np.arange(END)
    kept = np.zeros((END, END), bool)
    for layer, head in itertools.product(layers, range(HEADS)):
        kept |= keeps(pattern, layer, head, t, t)
    return np.logical_or.accumulate(kept[::-1])[::-1]


def dead(later: np.ndarray, length: int, size: int) -> list[bool]:
    """Which pages are dead at a length, by the definition."""
    count = -(-length // size)
    return [(p + 1) * size <= length and not later[length, p * size : (p + 1) * size].any() for p in range(count)]


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize("shard", SHARDS)
def test_pages_die_once_nothing_reads_them(shard: str, size: int) -> None:
    source = text(shard, "dense_layers: 0\n")
    assert kinds_of_layers(patterncc.load(source)) == [0, *([0] * 2 if shard == "dense" else [1] * 2)]
    for layers in ((1,), (0, 1)):
        later, pages, gone, before = read_later(source, layers), Pages(patterncc.load(source), layers, size), set(), 0
        for length in (7, 16, 97, 96 + 16, 240, 241, 400):
            gone |= set(pages.died(before, length))
            before = length
            assert gone == {p for p, is_dead in enumerate(dead(later, length, size)) if is_dead}, (layers, length)
            if length % size == 0:
                assert pages.alive(length // size) == [not x for x in dead(later, length, size)]


def played(later: np.ndarray, size: int, length: int, ahead: int, draw: random.Random) -> int:
    """The most pages that a request holds when each step computes some tokens of those in flight, and gives back."""
    computed = allocated = most = 0
    while computed < length:
        allocated = min(length, max(allocated, computed + draw.choice((1, ahead // 2, ahead))))
        held = -(-allocated // size) - sum(dead(later, computed, size))
        most = max(most, held)
        computed = draw.choice((allocated, max(computed + 1, allocated - ahead // 2)))
    return most


@pytest.mark.parametrize("shard", SHARDS)
def test_no_request_holds_more_than_is_said(shard: str) -> None:
    source, size, draw = text(shard), 16, random.Random(1)
    later = read_later(source, (0,))
    pages = Pages(patterncc.load(source), (0,), size)
    for length, ahead in ((30, 64), (500, 64), (333, 17), (600, 200)):
        said = pages.most_held(length, ahead)
        full = [played(later, size, length, ahead, draw) for _ in range(6)]
        assert max(full) <= said <= -(-length // size)
        exact = max(
            -(-min(length, computed + ahead) // size) - sum(dead(later, computed, size)) for computed in range(length)
        )
        assert said == exact
    assert shard == "dense" or pages.most_held(600, 64) < -(-600 // size)  # something is saved at all


@pytest.mark.parametrize("shard", ["stride", "tokens", "dense"])
def test_a_prefix_cache_serves_the_longest_prefix_whose_missing_pages_are_dead(shard: str) -> None:
    source, size, draw = text(shard), 16, random.Random(2)
    later = read_later(source, (0,))
    pages = Pages(patterncc.load(source), (0,), size)
    count, holes = 20, 0
    for _ in range(40):
        cached = [draw.random() < draw.choice((0.5, 0.9, 1.0)) for _ in range(count)]
        for step in (1, 3):
            good = [
                n
                for n in range(0, count + 1, step)
                if all(
                    is_cached or is_dead
                    for is_cached, is_dead in zip(cached, dead(later, n * size, size), strict=False)
                )
            ]
            hit = pages.longest_hit(iter(cached), count, step)
            assert hit == max(good)
            holes += not all(cached[:hit])
    assert (holes > 0) == (shard != "dense")  # hits with pages that are gone are among them


def test_a_cache_is_asked_no_further_than_the_first_page_that_would_be_missed_for_ever() -> None:
    asked: list[int] = []

    def cached() -> object:
        for page in range(1000):
            asked.append(page)
            yield page != 3

    assert pages_of(text("dense"), (0,), 16).longest_hit(cached(), 1000) == 3
    assert len(asked) == 4


def test_layers_of_several_shapes_have_pages_of_their_own() -> None:
    source = (
        text("stride")
        + f"layouts: [{{layers: 1, heads: 2, kv_heads: 1, head_dim: 32, shards: [{SHARDS['tokens']}]}}]\n"
    )
    package = patterncc.load(source)
    assert kinds_of_layers(package) == [0, 1, 0]
    alive = [Pages(package, (layer,), 16).alive(20) for layer in (0, 1)]
    assert alive == [(~package.dead_pages(320, 16, layer=layer)).tolist() for layer in (0, 1)]
    assert Pages(package, (0, 1), 16).alive(20) == [a or b for a, b in zip(*alive, strict=True)] != alive[0]
