"""Every shipped pattern: it says where it comes from, keeps its promises, compiles, runs right, and draws itself."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml

import patterncc
from patterncc import language, reference
from tests.command_line import patterncc_json, patterncc_text

FOLDER = Path(__file__).parent.parent / "patterns"
FILES = sorted(FOLDER.glob("*.yaml"))
NAMES = [file.stem for file in FILES]

# Keys enough to leave the longest window, and never a multiple of a block; queries: the last of them.
KEYS = {"mistral_7b": 4191, "a_shape": 4203, "streaming_llm": 2077, "gemma3": 1093, "phi3_small": 1637, "ranges": 1637}
KEYS |= {
    "llama4": 8261,
    "olmo3": 4191,
    "exaone4": 4191,
    "command_a": 4191,
    "trinity": 1093,
    "gemma4": 1093,
    "gemma2": 4191,
    "cowindow": 3301,
}
KEYS_OF_OTHERS = 901
QUERIES = 131


def test_the_gallery_is_there() -> None:
    """Not an empty folder: the tests below would pass on nothing."""
    assert {"demo", "phi3_small", "s2_strided", "s2_hybrid", "mistral_7b", "bigbird", "bert_local"} <= set(NAMES)


def test_the_schema_is_current() -> None:
    stored = json.loads((FOLDER / "pattern.schema.json").read_text())
    assert stored == language.schema(), "write it anew: patterncc schema > patterns/pattern.schema.json"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_it_says_what_it_is(file: Path) -> None:
    text = file.read_text()
    modeline, *_ = text.splitlines()
    assert modeline == "# yaml-language-server: $schema=pattern.schema.json"
    assert "# Source: " in text or file.stem == "demo"
    pattern = language.load(file)
    assert pattern.name == file.stem
    assert pattern.about.endswith(".")
    assert len(pattern.about) < 120
    assert pattern.promises


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_an_editor_accepts_it(file: Path) -> None:
    schema = json.loads((FOLDER / "pattern.schema.json").read_text())
    document = yaml.safe_load(file.read_text())
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):  # negative control
        jsonschema.validate(document | {"shard": []}, schema)


def test_promises_are_proved() -> None:
    proofs = patterncc_json("verify", "promises")
    assert {proof["name"] for proof in proofs} == set(NAMES)
    for proof in proofs:
        assert proof["results"]
        for result in proof["results"]:
            assert result["holds"] is True, (proof["name"], result)


@pytest.mark.parametrize("name", NAMES)
def test_it_draws_itself(name: str) -> None:
    drawing = patterncc_text("show", name)
    assert name in drawing
    assert len(drawing.splitlines()) > 5


@pytest.mark.parametrize("square", [True, False], ids=["from the start", "after many keys"])
@pytest.mark.parametrize("name", NAMES)
def test_attention_is_dense_attention_under_the_mask(name: str, square: bool, poisoned: None) -> None:
    """The first KV head in the first layer of each shape and the last KV head in the last layer, forward and backward,
    in float32.

    The reference is fp64. Errors are those of float32 sums of at most 4203 products of order one: 2e-6 by norm
    leaves a factor of four over what is seen.
    """
    pattern = language.load(FOLDER / f"{name}.yaml")
    package = patterncc.load(name)
    ends = [(0, 0), (pattern.layers - 1, pattern.shapes[-1].kv_heads - 1)]
    ends += [(pattern.shapes.index(shape), 0) for shape in dict.fromkeys(pattern.shapes)]
    keys = 2 * QUERIES + 1 if square else KEYS.get(name, KEYS_OF_OTHERS)
    queries = keys if square else QUERIES
    for layer, kv_head in sorted(set(ends)):
        of, first = pattern.shape(layer), kv_head * pattern.shape(layer).group
        torch.manual_seed(layer)
        sizes = ((of.group, queries, of.head_dim), (1, keys, of.head_dim), (1, keys, of.v_head_dim))
        q, k, v = (torch.randn(1, *size) for size in sizes)
        q /= (pattern.scale or of.head_dim**-0.5) * of.head_dim**0.5  # scores of order one, whatever the scale
        q, k, v = (tensor.requires_grad_() for tensor in (q, k, v))
        exact = [tensor.detach().double().requires_grad_() for tensor in (q, k, v)]
        sinks = torch.randn(of.group) if of.sinks else None
        out = package.attention(q, k, v, layer=layer, head_offset=first, sinks=sinks)
        expected, _ = reference.attention(pattern, *exact, layer=layer, head_offset=first, sinks=sinks)
        weight = torch.randn_like(out)
        out.backward(weight)
        expected.backward(weight.double())
        pairs = [(out, expected), *((mine.grad, true.grad) for mine, true in zip((q, k, v), exact, strict=True))]
        for mine, true in pairs:
            assert mine is not None
            assert true is not None
            assert (mine - true).norm() <= 2e-6 * true.norm()
