"""What is refused, and how: both numbers, the pattern's line, and what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import patterncc
from patterncc.errors import UsageError
from patterncc.integrations.vllm.fitting import check_engine, check_layer, check_model, check_sinks, source_of

TEXT = """pattern: 1
name: small
heads: 4  # of the model
kv_heads: 2
head_dim: 16
layers: 2
block: 16
shards: [{heads: all, local: 2, stride: 4, offset: 3}]
promises: {}
"""
MODEL = {"heads": 4, "kv_heads": 2, "head_dim": 16, "v_head_dim": 16, "layers": 2}
LAYER: dict[str, Any] = {
    "scale": 0.25, "softcap": None, "alibi": False, "sliding_window": None, "kv_cache_dtype": "auto",
    "dtype": "bfloat16", "attn_type": "decoder", "shares_kv_with": None, "others": {},
}  # fmt: skip
ENGINE: dict[str, Any] = {
    "speculative": False, "transfers_kv": False, "decode_context": 1, "prefill_context": 1, "is_hybrid": False,
}  # fmt: skip


def test_what_fits_is_not_spoken_of() -> None:
    package = patterncc.load(TEXT)
    check_model(package, MODEL)
    check_layer(package, **LAYER)
    check_layer(package, **LAYER | {"softcap": 0.0, "kv_cache_dtype": "bfloat16", "others": {"use_alibi_sqrt": False}})
    check_engine(**ENGINE)


@pytest.mark.parametrize("key", MODEL)
def test_a_model_that_is_another_is_named_with_both_numbers_and_the_line(key: str) -> None:
    with pytest.raises(
        UsageError, match=f"the model has {MODEL[key] + 3} .* the pattern small has {MODEL[key]}"
    ) as said:
        check_model(patterncc.load(TEXT), MODEL | {key: MODEL[key] + 3})
    line = (
        TEXT.splitlines().index(f"{key}: {MODEL[key]}" + "  # of the model" * (key == "heads")) + 1
        if key in TEXT
        else 0
    )
    assert key == "v_head_dim" or f"(line {line}: {key}: {MODEL[key]})" in str(said.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"softcap": 50.0}, "write `softcap: 50.0`"),
        ({"alibi": True}, "ALiBi"),
        ({"sliding_window": 4096}, "a sliding window of 4096 tokens"),
        ({"kv_cache_dtype": "fp8_e5m2"}, "kv_cache_dtype is fp8_e5m2"),
        ({"kv_cache_dtype": "float16"}, "the model's dtype bfloat16"),
        ({"attn_type": "encoder_only"}, "encoder_only attention"),
        ({"shares_kv_with": "model.layers.0.attn"}, "the KV cache of model.layers.0.attn"),
        ({"others": {"chunk_lookback": 3, "x": None}}, "asks for chunk_lookback"),
    ],
)
def test_a_layer_that_asks_for_more_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as said:
        check_layer(patterncc.load(TEXT), **LAYER | changes)
    assert words in str(said.value)


def test_caps_and_sinks_of_the_pattern_need_those_of_the_model() -> None:
    package = patterncc.load(TEXT + "softcap: 30.0\nsinks: learned\n")
    check_layer(package, **LAYER | {"softcap": 30.0})
    check_sinks(package, 1, True)
    with pytest.raises(UsageError, match="caps its scores at None, the pattern small at 30"):
        check_layer(package, **LAYER)
    with pytest.raises(UsageError, match="layer 1 of the model has no learned sinks, the pattern has"):
        check_sinks(package, 1, False)
    with pytest.raises(UsageError, match="layer 0 of the model has learned sinks, the pattern has none"):
        check_sinks(patterncc.load(TEXT), 0, True)


def test_a_scale_that_the_pattern_states_is_the_models() -> None:
    package = patterncc.load(TEXT + "scale: 0.125\n")
    check_layer(package, **LAYER | {"scale": 0.125})
    check_layer(package, **LAYER | {"scale": 0.12500001})
    with pytest.raises(UsageError, match=r"by 0\.25, the pattern small by 0\.125 \(line 10: scale: 0\.125\)"):
        check_layer(package, **LAYER)
    check_layer(patterncc.load(TEXT), **LAYER | {"scale": 7.0})  # a pattern that states none takes the model's


@pytest.mark.parametrize("key", ENGINE)
def test_parts_of_the_engine_that_were_not_tried_are_refused(key: str) -> None:
    with pytest.raises(UsageError):
        check_engine(**ENGINE | {key: 2 if ENGINE[key] is not False else True})


def test_a_pattern_that_looks_ahead_is_refused() -> None:
    with pytest.raises(UsageError, match="bert_local is not causal"):
        check_model(patterncc.load("bert_local"), {})


def test_a_pattern_is_named_by_a_name_a_path_a_text_or_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    assert source_of({"patterncc": "s2_hybrid"}) == "s2_hybrid"
    assert source_of({"patterncc": "mine.yaml"}) == str(tmp_path / "mine.yaml")  # workers may run elsewhere
    assert source_of({"patterncc": TEXT}) == TEXT
    keys = {"pattern": 1, "name": "small", **{k: v for k, v in MODEL.items() if k != "v_head_dim"}, "block": 16}
    keys |= {"shards": [{"heads": "all", "local": 2}], "promises": {}}
    assert patterncc.load(source_of({"patterncc": keys})).PATTERN["heads"] == 4


@pytest.mark.parametrize(
    "given", [{}, None, {"pattern": "x"}, {"patterncc": 3}, {"patterncc": ""}, {"patterncc": None}]
)
def test_no_pattern_is_a_mistake_that_says_what_to_write(given: Any) -> None:
    with pytest.raises(UsageError, match="additional_config") as said:
        source_of(given)
    assert 'additional_config={"patterncc": "s2_hybrid"}' in str(said.value)


def test_layers_of_several_shapes_are_compared_one_by_one() -> None:
    package = patterncc.load(TEXT + "layouts: [{layers: 1, heads: 2, kv_heads: 1, shards: [{heads: all, local: 2}]}]\n")
    check_model(package, {"heads": 4, "layers": 2, "head_dim": 16})  # of no layer: what all share is compared
    check_model(package, {"heads": 2}, 1)
    with pytest.raises(UsageError, match="the model has 4 heads in layer 1, the pattern small has 2"):
        check_model(package, {"heads": 4}, 1)
    with pytest.raises(UsageError, match="the model has 8 numbers a head"):
        check_model(package, {"heads": 4, "head_dim": 8})
