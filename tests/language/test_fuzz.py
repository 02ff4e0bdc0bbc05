"""Mutants of a valid file: a pattern or a PatternError, nothing else, and every error can be shown."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterncc import language
from patterncc.errors import PatternError

VALID = """\
pattern: 1
name: fuzz
about: "Every key, once."
heads: 8
kv_heads: 2
head_dim: 64
layers: 6
block: 16
causal: false
shards:
  - heads: [0, 2]
    local: {before: 4, after: "16 tokens"}
    stride: 4
    offset: [3, h % 2]
    width: 1
  - heads: 1::2
    local: 64 tokens
    strides:
      - {every: 8, offset: g}
      - every: h + 2
        width: h // 4 + 1
        anchor: query
        from: 4
        to: 64 + l
    sink: 4 tokens
    globals: {rows: [0, 5-7, h], columns: [1]}
    random: {blocks: 2, seed: h}
  - heads: rest
    dense: true
dense_layers: 0
layouts:
  - layers: "4:"
    shards:
      - heads: all
        sink: 1
promises: {coverage: layer, rows: nonempty, kv: monotone, reach: 4 layers}
"""
PIECES = [
    "&a ", "*a", "<<: *a", "!!int ", "---\n", "...\n", "\t", "on", "~", ".nan", "0x10", "010", "12:30", "1e9", "-1",
    "[", "]", "{", "}", ": ", "- ", "? ", "'", '"', "|", ">", "#", "%", "@", "`", "\\", "\r", "\x00", "\x85", "\u2028",
    "\ufeff", "\ud800", "é", "全", "\U0001f600", "99999999999999999999999", "h", "g", "l", "**", "//", " tokens",
    "all", "rest", "dense: true", ",", "\n", "  ",
]  # fmt: skip


def outcome(text: str) -> str:
    try:
        pattern = language.loads(text, "fuzz.yaml")
    except PatternError as error:
        assert error.diagnostics and error.render() and error.render(color=True)
        return "refused"
    for layer in range(pattern.layers):
        for head in range(pattern.heads):
            pattern.shard(layer, head)
    return "taken"


def mutant(generator: random.Random) -> str:
    text = VALID
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(text) + 1)
        end = min(len(text), at + generator.choice((0, 0, 1, 1, 3, 20)))
        lines = text.splitlines(keepends=True)
        kind = generator.randrange(4)
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:at] + generator.choice(PIECES) + text[end:]
        elif kind == 2:
            other = generator.randrange(len(text) + 1)
            text = text[:at] + text[other : other + 12] + text[end:]
        elif lines:
            generator.shuffle(lines) if generator.random() < 0.1 else lines.insert(
                at % len(lines), generator.choice(lines)
            )
            text = "".join(lines)
    return text


def fuzz(count: int, seed: int) -> tuple[int, float]:
    """How many of `count` mutants were taken, and the longest time that one needed."""
    generator = random.Random(seed)
    taken, longest = 0, 0.0
    for _ in range(count):
        text, start = mutant(generator), time.process_time()
        taken += outcome(text) == "taken"
        longest = max(longest, time.process_time() - start)
    return taken, longest


def test_the_file_itself_is_taken() -> None:
    assert outcome(VALID) == "taken"


def test_mutants() -> None:
    taken, longest = fuzz(600, seed=1)
    assert 0 < taken < 600  # both kinds occur
    assert longest < 5


@pytest.mark.slow
def test_many_mutants() -> None:
    assert fuzz(60_000, seed=2)[1] < 5


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    outcome(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("hgl0123456789+-*/%() :,tokensab", max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TOP = [
    "name",
    "about",
    "heads",
    "kv_heads",
    "head_dim",
    "layers",
    "block",
    "causal",
    "dense_layers",
    "layouts",
    "promises",
]
PARTS = ["heads", "dense", "local", "stride", "offset", "width", "strides", "sink", "globals", "random", "mask"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([("top", key) for key in TOP] + [("part", key) for key in PARTS]), VALUES)
def test_any_value_under_any_key(place: tuple[str, str], value: object) -> None:
    """Written as JSON, which YAML contains: what is refused is refused once, in our words."""
    import json

    data: dict[str, object] = {"pattern": 1, "name": "demo", "heads": 4, "block": 16}
    entry: dict[str, object] = {"heads": "all", "stride": 4}
    (data if place[0] == "top" else entry)[place[1]] = value
    data["shards"] = [entry]
    outcome(json.dumps(data))
