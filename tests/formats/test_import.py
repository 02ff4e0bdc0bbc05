"""What other libraries say, read into this language: equal to its source by masks that are written down here again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from patterncc.cli.run import run
from patterncc.errors import UsageError
from patterncc.formats.importing import import_pattern
from patterncc.language import loads
from patterncc.language.shape import Shape as Sizes
from tests.formats.imported import CONFIG, NARROW, mask_of, read


@pytest.mark.parametrize(
    ("model", "windows"),
    [
        ({"model_type": "llama"}, [None] * 6),
        ({"model_type": "mistral", "sliding_window": 40}, [40] * 6),
        ({"model_type": "mistral", "sliding_window": None}, [None] * 6),
        ({"model_type": "new", "layer_types": ["sliding_attention", "full_attention"] * 3, "sliding_window": 9},
         [9, None] * 3),
        (NARROW | {"model_type": "gemma3_text", "sliding_window": 20}, [20] * 5 + [None]),
        ({"model_type": "cohere2", "sliding_window": 20}, [20, 20, 20, None, 20, 20]),
        (NARROW | {"model_type": "qwen3", "sliding_window": 8, "use_sliding_window": True, "max_window_layers": 4},
         [None] * 4 + [8, 8]),
        (NARROW | {"model_type": "qwen3", "sliding_window": 8, "use_sliding_window": False}, [None] * 6),
    ],
)  # fmt: skip
def test_causal_configurations(tmp_path: Path, model: dict, windows: list[int | None]) -> None:
    pattern = read(tmp_path, CONFIG | model)
    assert (pattern.heads, pattern.kv_heads, pattern.head_dim, pattern.layers) == (4, 2, 64, 6)
    t = np.arange(75)
    distance = t[:, None] - t
    for layer, window in enumerate(windows):
        expected = (distance >= 0) & (distance < (window or 75))
        assert (mask_of(pattern, 75, layer) == expected).all(), layer


@pytest.mark.parametrize(("window", "far"), [(8, 4), (7, 3)])
def test_longformer_has_half_a_window_on_each_side(tmp_path: Path, window: int, far: int) -> None:
    pattern = read(tmp_path, CONFIG | {"model_type": "longformer", "attention_window": [window] * 6})
    t = np.arange(61)
    assert (mask_of(pattern, 61) == (abs(t[:, None] - t) <= far)).all()


def test_widths_of_values_are_read(tmp_path: Path) -> None:
    pattern = read(tmp_path, CONFIG | {"model_type": "mimo_v2", "head_dim": 192, "v_head_dim": 128})
    assert (pattern.head_dim, pattern.v_head_dim) == (192, 128)
    parts = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 96, "head_dim": 64}
    latent = read(tmp_path, CONFIG | {"model_type": "deepseek_v3"} | parts)
    assert (latent.head_dim, latent.v_head_dim) == (192, 96)
    assert "v_head_dim" not in read(tmp_path, CONFIG | {"model_type": "llama"}).source


def test_caps_and_sinks_are_read(tmp_path: Path) -> None:
    gemma = read(tmp_path, CONFIG | {"model_type": "gemma2", "sliding_window": 32, "attn_logit_softcapping": 50.0})
    assert gemma.softcap == 50 and gemma.shard(0, 0).local_tokens == (32, 1) and gemma.shard(1, 0).dense
    assert read(tmp_path, CONFIG | {"model_type": "gpt_oss", "sliding_window": 32}).sinks == "learned"
    llama4 = CONFIG | {"model_type": "llama4_text", "attention_chunk_size": 8192}
    assert [read(tmp_path, llama4).shard(layer, 0).dense for layer in range(4)] == [False, False, False, True]


def test_scales_are_read(tmp_path: Path) -> None:
    def scale(**said: object) -> float | None:
        return read(tmp_path, CONFIG | {"sliding_window": 32} | said).scale

    assert scale(model_type="gemma2", query_pre_attn_scalar=144) == 144**-0.5
    assert scale(model_type="gemma3_text", head_dim=64) == 1 / 16  # 256 where the configuration says nothing
    assert scale(model_type="gemma3_text") is None  # head_dim is 256 there too: the pattern's own default
    assert scale(model_type="gemma2", query_pre_attn_scalar=64, head_dim=64) is None
    assert scale(model_type="granite", attention_multiplier=0.0078125) == 0.0078125
    assert scale(model_type="llama") is None
    for wrong in (0, True, "x", -1, float("inf")):
        with pytest.raises(UsageError, match=r"`query_pre_attn_scalar` is .*; expected a positive number"):
            scale(model_type="gemma2", query_pre_attn_scalar=wrong)


def test_what_a_configuration_leaves_out_is_what_its_class_takes(tmp_path: Path) -> None:
    """A file that states no widths, nested in a larger one: transformers takes heads of 256 for Gemma 3."""
    text = {"num_attention_heads": 8, "num_hidden_layers": 6, "hidden_size": 2560}
    pattern = read(tmp_path, {"model_type": "gemma3", "text_config": text})
    assert (pattern.kv_heads, pattern.head_dim, pattern.shard(0, 0).local_tokens) == (4, 256, (4096, 1))
    mistral = read(tmp_path, {"model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 2})
    assert (mistral.kv_heads, mistral.head_dim, mistral.shard(0, 0).local_tokens) == (8, 128, (4096, 1))
    other = read(tmp_path, {"model_type": "mistral", "num_attention_heads": 4, "num_hidden_layers": 2})
    assert (other.kv_heads, other.head_dim) == (4, 128)  # its 8 KV heads and its hidden_size are those of 32 heads


THREE = ["full_attention", *["sliding_attention"] * 3] * 2


@pytest.mark.parametrize(
    ("kind", "said", "shapes", "window"),
    [
        (
            "laguna",
            {"layer_types": THREE, "num_attention_heads_per_layer": [4, 6, 6, 6] * 2},
            [Sizes(4, 2, 16), *[Sizes(6, 2, 16)] * 3] * 2,
            40,
        ),
        (
            "step3p5",
            {"layer_types": [*THREE, "full_attention"], "attention_other_setting": {"num_attention_heads": 6}},
            [Sizes(4, 2, 16), *[Sizes(6, 2, 16)] * 3] * 2,
            40,
        ),
        (
            "gemma4_text",
            {"global_head_dim": 32, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
            [*[Sizes(4, 2, 16)] * 5, Sizes(4, 1, 32), Sizes(4, 2, 16), Sizes(4, 1, 32)],
            40,
        ),
        (
            "mimo_v2_flash",
            {"head_dim": 24, "v_head_dim": 16, "sliding_window_size": 40},
            [Sizes(4, 2, 24, 16), *[Sizes(4, 4, 24, 16, True)] * 4, Sizes(4, 2, 24, 16)]
            + [Sizes(4, 4, 24, 16, True)] * 2,
            41,
        ),
    ],
)
def test_sizes_of_single_layers_are_read(
    tmp_path: Path, kind: str, said: dict, shapes: list[Sizes], window: int
) -> None:
    config = {"num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config |= {"hidden_size": 64, "sliding_window": 40, "model_type": kind} | said
    (tmp_path / "config.json").write_text(json.dumps(config))
    pattern = loads(import_pattern(str(tmp_path / "config.json"), name="sized").yaml)
    assert list(pattern.shapes) == shapes
    kept = [shard.local_tokens for shard in (pattern.shard(layer, 0) for layer in range(8)) if not shard.dense]
    assert set(kept) == {(window, 1)}


def test_what_is_not_static_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="layer 1 is `linear_attention`, which is no static pattern"):
        read(tmp_path, CONFIG | {"layer_types": ["full_attention", "linear_attention"] * 3})


def test_the_command_writes_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"model_type": "mistral", "sliding_window": 64}))
    assert run(["import", str(tmp_path), "--name", "mine", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == "mine" and document["exact"] and "local: 64 tokens" in document["yaml"]
    assert loads(document["yaml"]).name == "mine"
