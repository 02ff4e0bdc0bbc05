"""One of a thing is in the singular, whatever a command counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.shell import Shell

ONE = """
pattern: 1
name: one
heads: 1
head_dim: 16
block: 16
shards: [{heads: all, local: 1}]
promises: {}
"""
TWO = ONE.replace("name: one", "name: two").replace("local: 1", "local: 2, sink: 1").replace("heads: 1", "heads: 2")
SEVERAL = re.compile(r"(?<![\d.,:=-])\b1 (?:more |KV |query |local )?(?!is\b|was\b|has\b)[a-z]+s\b")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"one": ONE, "two": TWO}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 1, "num_hidden_layers": 1}))
    return tmp_path


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (0, "compile one.yaml"),
        (0, "cache ls"),
        (0, "cache verify"),
        (0, "cache clear"),
        (0, "list"),
        (0, "verify all one.yaml two.yaml -n 1"),
        (1, "verify coverage one.yaml -n 1"),
        (0, "verify kv two.yaml -n 1"),
        (0, "table one.yaml -n 1 -o one.npz"),
        (0, "show one.yaml -n 1"),
        (0, "show one.yaml two.yaml -n 1"),
        (0, "show one.yaml two.yaml --overview -n 1"),
        (0, "show two.yaml --overview -n 1"),
        (0, "forecast one.yaml -n 1 --devices 1 --batch 1 --memory 1MiB"),
        (1, "diff one.yaml two.yaml"),
        (2, "suggest --heads 1 --layers 1 -n 1"),
        (0, "suggest --heads 2 --layers 2 -n 1 --dense-layers 1"),
        (2, "suggest --heads 1 --layers 1 -n 1 --dense-layers 1"),
        (2, "suggest --heads 1 --kv-heads 2 --layers 1 -n 1"),
        (2, "suggest --heads 1 --layers 3 -n 1 --coverage model --dense-layers 2"),
        (2, "forecast two.yaml -n 1 --model config.json"),
        (2, "table one.yaml -n 1 --head 1"),
        (2, "table one.yaml -n 1 --layer 1"),
        (2, "show one.yaml --head 1"),
    ],
)
def test_one_of_a_thing(patterncc: Shell, files: Path, code: int, line: str) -> None:
    if line.startswith("cache"):
        patterncc("compile", "one.yaml")
    text = patterncc(*line.split(), code=code) + patterncc.err
    assert not SEVERAL.findall(text), text


def test_the_rule_finds_what_it_is_for() -> None:
    text = "1 tokens, 1 KV heads, 1 more layers; 11 tokens, 0.1 heads, layer 1 is, 1 token's, 1-1 rows"
    assert SEVERAL.findall(text) == ["1 tokens", "1 KV heads", "1 more layers"]


@pytest.mark.parametrize("format", ["svg", "html"])
def test_one_of_a_thing_in_a_picture(patterncc: Shell, files: Path, format: str) -> None:
    for arguments in (["one.yaml"], ["one.yaml", "two.yaml"], ["two.yaml", "--overview"]):
        patterncc("show", *arguments, "-n", 1, "-o", f"drawn.{format}")
        text = (files / f"drawn.{format}").read_text()
        assert not SEVERAL.findall(re.sub(r"<script.*?</script>|<[^>]*>", "\n", text, flags=re.DOTALL))
