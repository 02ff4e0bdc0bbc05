"""Files that mean harm get a PatternError, in bounded time and memory."""

from __future__ import annotations

import time

import pytest

from patterncc import language
from patterncc.errors import PatternError

HEAD = "pattern: 1\nname: demo\nheads: 8\nblock: 64\n"
MANY = HEAD.replace("heads: 8", "heads: 4096") + "layers: 16\nshards:\n"


def harm(full: int) -> dict[str, str]:
    """Texts of about `full` characters, where length is the harm."""
    return {
        "lists in lists": HEAD + "about: " + "[" * full,
        "mappings in mappings": HEAD + "about: " + "{a: " * (full // 4),
        "dashes": HEAD + "about:\n  " + "- " * (full // 2),
        "question marks": HEAD + "? " * (full // 2),
        "a million digits": HEAD + "layers: " + "9" * full,
        "a million hexadecimal digits": HEAD + "layers: 0x" + "f" * full,
        "four thousand digits": HEAD + "layers: " + "9" * 4096,
        "four thousand hexadecimal digits": HEAD + "layers: 0x" + "f" * 4000,
        "base 60": HEAD + "layers: " + ":".join(["59"] * (full // 3)),
        "short base 60": HEAD + "layers: " + ":".join(["59"] * 1300),
        "exponent": HEAD + "layers: 1e999999999",
        "one long word": HEAD + "about: " + "x" * full,
        "a quote never closed": HEAD + 'about: "' + "x\n" * (full // 2),
        "many keys": HEAD + "".join(f"k{i}: 1\n" for i in range(full // 12)),
        "one key many times": HEAD + "block: 1\n" * (full // 9),
        "unknown keys on one line": HEAD + "about: {" + "a:" + " 1, a: " * (full // 20) + "1}",
        "many anchors": HEAD + "about: [" + "&a x," * (full // 5) + "]",
        "many aliases": HEAD + "about: [" + "*a ," * (full // 4) + "]",
        "alias bomb": HEAD
        + "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
        "an alias of itself": HEAD + "about: &a [*a]",
        "many documents": HEAD + "---\n" * (full // 5),
        "a version with a million digits": "%YAML 1." + "1" * full + "\n--- a",
        "escape beyond Unicode": HEAD + 'about: "\\UFFFFFFFF"',
        "zero byte": HEAD + "about: \0",
        "lone surrogate": HEAD + "about: \ud800",
        "a long selector": HEAD + f"shards:\n  - heads: {','.join(['0'] * 2000)}\n    local: 1\n",
        "a longer selector": MANY + f"  - heads: [{','.join(['0-4095'] * 4000)}]\n    local: 1\n",
        "parentheses": HEAD + "shards:\n  - heads: all\n    local: " + "(" * 99 + "h" + ")" * 100,
        "signs": HEAD + "shards:\n  - heads: all\n    local: " + "-" * 199 + "h\n",
        "products": HEAD + "shards:\n  - heads: all\n    local: " + "9999999999*" * 18 + "h\n",
        "powers": HEAD + "shards:\n  - heads: all\n    local: 9**9**9**9\n",
        "every head its own strides": MANY
        + f"  - {{heads: all, strides: [{','.join(['{every: h * 7 + l}'] * 256)}]}}\n",
        "every head its own rows": MANY
        + f"  - {{heads: all, globals: {{rows: [{','.join(['0-4000'] * 4000)}, h + l]}}}}\n",
        "every head its own mistake": MANY
        + "  - {heads: all, local: h - 100000, stride: l // (h - g), offset: [9, 9, 9]}\n",
        "a billion heads": HEAD.replace("heads: 8", "heads: 1000000000") + "shards:\n  - heads: all\n    local: h\n",
        "tokens beyond all": HEAD + f"shards:\n  - heads: all\n    local: {10**18} tokens\n    sink: {10**19} tokens\n",
        "larger than the largest": HEAD + "#" * 2**20,
    }


@pytest.mark.parametrize("full", [2**17, pytest.param(2**20 - 200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", harm(1))
def test_harm_is_refused_in_bounded_time(kind: str, full: int) -> None:
    text = harm(full)[kind]
    start = time.process_time()
    with pytest.raises(PatternError) as caught:
        language.loads(text, "harm.yaml")
    words = caught.value.render()
    # PyYAML's pure scanner takes up to 5 s a megabyte on a slow machine; nothing may take much longer.
    assert time.process_time() - start < 20
    assert words and len(words) < 100_000


SPACES = " " * 4000
ONE_VALUE = {  # values that a regular expression with two ways through the same characters would not get past
    "spaces before a word": f'shards:\n  - heads: all\n    local: "{SPACES}x"\n',
    "spaces after a number": f'shards:\n  - heads: all\n    local: "1{SPACES}x!"\n',
    "spaces on both sides": f'shards:\n  - heads: all\n    sink: "{SPACES[:2000]}1 tokens{SPACES[:2000]}!"\n',
    "words": "shards:\n  - heads: all\n    stride: " + "a " * 2000 + "!\n",
    "tokens": "shards:\n  - heads: all\n    stride: " + "1 tokens " * 400 + "!\n",
    "a range of spaces": f'shards:\n  - heads: all\n    globals: {{rows: ["1 -{SPACES}x"]}}\n',
    "a slice of spaces": f'shards:\n  - heads: ":{SPACES}x"\n    local: 1\n',
    "three slices of spaces": 'shards:\n  - heads: "1{0}:{0}2{0}:{0}x"\n    local: 1\n'.format(SPACES[:1000]),
    "layers": f'dense_layers: ":{SPACES}x"\nshards: [{{heads: all, local: 1}}]\n',
    "reach": f'promises: {{reach: "4{SPACES}x"}}\nshards: [{{heads: all, local: 1}}]\n',
    "underscores": "layers: 1" + "_" * 28 + "x\n",
    "more underscores": "layers: 1" + "_" * 4000 + "x\n",
    "digits and underscores": "layers: " + "1_" * 2000 + "x\n",
    "colons": "layers: " + "1:" * 2000 + "x\n",
    "a date": f"about: 2020-01-01 {SPACES}x\nlayers: x\n",
    "hexadecimal underscores": "layers: 0x" + "_" * 4000 + "g\n",
    "exponents": "layers: " + "1" * 4000 + ".1ex\n",
}


@pytest.mark.parametrize("kind", ONE_VALUE)
def test_one_value_takes_time_in_proportion_to_its_length(kind: str) -> None:
    text = HEAD + ONE_VALUE[kind]
    with pytest.raises(PatternError):
        language.loads(text)  # what is imported late, now
    start = time.process_time()
    with pytest.raises(PatternError):
        language.loads(text)
    # 0.01 s; squares took 0.25 s to 0.5 s, and powers of two (28 underscores) 16 s.
    assert time.process_time() - start < 0.1


def test_a_length_and_its_unit_stand_far_apart() -> None:
    """The bound on a length is the one of an expression, and spaces at its ends do not count."""
    assert shard(f"local: '{SPACES}12 tokens{SPACES[:50]}'") == shard("local: 12 tokens")
    assert shard(f"local: h * 16 + 1 {' ' * 30}tokens", head=2) == shard("local: 33 tokens", head=2)
    with pytest.raises(PatternError, match="an expression of 307 characters; the most is 200"):
        shard(f"local: '1{' ' * 300}tokens'")


def shard(line: str, head: int = 0) -> str:
    return repr(language.loads(f"{HEAD}shards:\n  - heads: all\n    {line}\n").shard(0, head))


def test_what_is_largest_still_loads() -> None:
    text = MANY + "".join(f"  - {{heads: {i}, local: h + l + 1}}\n" for i in range(4096))
    pattern = language.loads(text)
    assert pattern.shard(15, 4095).local == (4111, 1)
