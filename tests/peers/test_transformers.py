"""Windows as the transformers library itself applies them: tiny models with the real layer schedules and windows.

A model with random weights is run with eager attention; where a weight is positive, the library let the query see the
key. Scores of such a model are near zero, so no positive weight underflows.
One list of models, longer than other files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from patterncc import language, reference

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

PATTERNS = Path(__file__).parents[2] / "patterns"
TINY = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 32, "num_attention_heads": 1, "head_dim": 16}


def mistral() -> Any:
    config = transformers.MistralConfig(**TINY, num_key_value_heads=1, num_hidden_layers=1, sliding_window=4096)
    return transformers.MistralModel._from_config(config, attn_implementation="eager")


def gemma3() -> Any:
    config = transformers.Gemma3TextConfig(
        **TINY,
        num_key_value_heads=1,
        num_hidden_layers=34,
        sliding_window=1024,
        layer_types=["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(34)],
    )
    return transformers.Gemma3TextModel._from_config(config, attn_implementation="eager")


def gpt_oss() -> Any:
    config = transformers.GptOssConfig(
        **TINY,
        num_key_value_heads=1,
        num_hidden_layers=24,
        sliding_window=128,
        num_local_experts=2,
        num_experts_per_tok=1,
    )
    return transformers.GptOssModel._from_config(config, attn_implementation="eager")


def modern_bert() -> Any:
    sizes = {key: value for key, value in TINY.items() if key != "head_dim"}
    config = transformers.ModernBertConfig(
        **sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    )
    return transformers.ModernBertModel._from_config(config, attn_implementation="eager")


@pytest.mark.parametrize(
    ("name", "make", "length"),
    [
        ("mistral_7b", mistral, 4200),
        ("gemma3", gemma3, 1100),
        ("gpt_oss", gpt_oss, 300),
        ("bert_local", modern_bert, 200),
    ],
)
def test_the_window_is_the_librarys(name: str, make: Callable[[], Any], length: int) -> None:
    pattern = language.load(PATTERNS / f"{name}.yaml")
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        output = model(torch.randint(3, 32, (1, length)), output_attentions=True)
    sees = [weights[0, 0] > 0 for weights in output.attentions]
    assert len(sees) == pattern.layers or name == "mistral_7b"
    for layer, seen in enumerate(sees):
        assert torch.equal(seen, reference.mask(pattern, layer, 0, length, length)), f"layer {layer}"


def every_fourth_dense(name: str, **sizes: Any) -> tuple[Any, Any]:
    """A model of four tiny layers, and the library's own configuration of that kind with all of its defaults."""
    config = getattr(transformers, f"{name}Config" if name != "Llama4" else "Llama4TextConfig")
    model = getattr(transformers, f"{name}Model" if name != "Llama4" else "Llama4TextModel")
    tiny = config(**TINY, num_key_value_heads=1, num_hidden_layers=4, **sizes)
    return model._from_config(tiny, attn_implementation="eager"), config()


@pytest.mark.parametrize(
    ("name", "library", "sizes"),
    [
        ("llama4", "Llama4", {"attention_chunk_size": 192, "num_local_experts": 1, "intermediate_size_mlp": 16}),
        ("olmo3", "Olmo3", {"sliding_window": 192, "pad_token_id": 0}),
        ("exaone4", "Exaone4", {"sliding_window": 192, "sliding_window_pattern": 4}),
        ("command_a", "Cohere2", {"sliding_window": 192}),
        ("trinity", "Afmoe", {"sliding_window": 192, "num_dense_layers": 4}),
        ("smollm3", "SmolLM3", {"pad_token_id": 0}),
    ],
)
def test_three_layers_to_one(name: str, library: str, sizes: dict[str, Any]) -> None:
    """The masks of four layers, with a shorter window or chunk, at a length that is no multiple of anything; and which
    of all layers are dense, where the library's defaults have as many."""
    torch.manual_seed(0)
    model, defaults = every_fourth_dense(library, **sizes)
    text = (PATTERNS / f"{name}.yaml").read_text()
    real = language.loads(text)
    for tokens in (8192, 4096, 1024):
        text = text.replace(f"{tokens} tokens\n", "192 tokens\n")
    pattern = language.loads(text)
    with torch.no_grad():
        output = model.eval()(torch.randint(3, 32, (1, 421)), output_attentions=True)
    for layer, weights in enumerate(output.attentions):
        assert torch.equal(weights[0, 0] > 0, reference.mask(pattern, layer, 0, 421)), f"layer {layer}"
    if defaults.num_hidden_layers == real.layers:
        dense = [kind == "full_attention" for kind in defaults.layer_types]
        assert dense == [real.shard(layer, 0).dense for layer in range(real.layers)]


def laguna() -> Any:
    heads = [3 if layer % 4 else 2 for layer in range(8)]
    config = transformers.LagunaConfig(
        **TINY | {"num_attention_heads": 2},
        num_key_value_heads=1,
        num_hidden_layers=8,
        sliding_window=192,
        num_attention_heads_per_layer=heads,
        layer_types=["sliding_attention" if layer % 4 else "full_attention" for layer in range(8)],
        mlp_layer_types=["dense"] * 8,
        pad_token_id=0,
    )
    return transformers.LagunaModel._from_config(config, attn_implementation="eager")


def step() -> Any:
    from transformers.models.step3p7.configuration_step3p7 import Step3p7TextConfig
    from transformers.models.step3p7.modeling_step3p7 import Step3p7TextModel

    config = Step3p7TextConfig(
        **TINY | {"num_attention_heads": 2},
        num_key_value_heads=1,
        num_hidden_layers=8,
        sliding_window=192,
        num_sliding_attention_heads=3,
        layer_types=["sliding_attention" if layer % 4 else "full_attention" for layer in range(8)],
        mlp_layer_types=["dense"] * 8,
        pad_token_id=0,
    )
    return Step3p7TextModel._from_config(config, attn_implementation="eager")


def mimo() -> Any:
    config = transformers.MiMoV2FlashConfig(
        **TINY | {"num_attention_heads": 4, "head_dim": 24},
        v_head_dim=16,
        num_key_value_heads=1,
        num_hidden_layers=8,
        sliding_window=193,
        n_routed_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        mlp_layer_types=["dense"] * 8,
    )
    model = transformers.MiMoV2FlashModel._from_config(config, attn_implementation="eager")
    for layer in model.layers:
        if layer.self_attn.sinks is not None:
            torch.nn.init.normal_(layer.self_attn.sinks)
    return model


def gemma4() -> Any:
    config = transformers.Gemma4TextConfig(
        **TINY | {"num_attention_heads": 4},
        num_key_value_heads=2,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        global_head_dim=32,
        num_hidden_layers=12,
        sliding_window=192,
        hidden_size_per_layer_input=0,
    )
    return transformers.Gemma4TextModel._from_config(config, attn_implementation="eager")


def smaller(name: str, sizes: dict[str, Any], window: int = 192, layers: int = 8) -> language.Pattern:
    """A shipped pattern with other numbers: its text with each key's value, wherever it stands, replaced in turn."""
    text = (PATTERNS / f"{name}.yaml").read_text()
    for key, values in sizes.items():
        found = iter(values if isinstance(values, list) else [values])
        text = re.sub(
            rf"^( *)({key}): \d+$", lambda at, found=found: f"{at[1]}{at[2]}: {next(found)}", text, flags=re.M
        )
    text = re.sub(r"^layers: \d+$", f"layers: {layers}", text, flags=re.M)
    return language.loads(re.sub(r"\d+ tokens\n", f"{window} tokens\n", text))


@pytest.mark.parametrize(("name", "make"), [("laguna_xs", laguna), ("step_35_flash", step)])
def test_heads_that_differ_by_layer(name: str, make: Callable[[], Any]) -> None:
    """Two heads in dense layers and three in the others: masks, and as many weights as the pattern has heads."""
    pattern = smaller(name, {"heads": [2, 3], "kv_heads": 1, "head_dim": 16})
    torch.manual_seed(0)
    with torch.no_grad():
        output = make().eval()(torch.randint(3, 32, (1, 421)), output_attentions=True)
    assert [weights.shape[1] for weights in output.attentions] == [shape.heads for shape in pattern.shapes]
    for layer, weights in enumerate(output.attentions):
        assert torch.equal(weights[0] > 0, reference.dense_mask(pattern, layer, 421)), f"layer {layer}"


def test_sizes_and_windows_of_gemma4() -> None:
    sizes = {"heads": 4, "kv_heads": [2, 1], "head_dim": [16, 32]}
    pattern, real = smaller("gemma4", sizes, layers=12), language.load(PATTERNS / "gemma4.yaml")
    torch.manual_seed(0)
    model = gemma4().eval()
    with torch.no_grad():
        output = model(torch.randint(3, 32, (1, 421)), output_attentions=True)
    for layer, weights in enumerate(output.attentions):
        assert torch.equal(weights[0] > 0, reference.dense_mask(pattern, layer, 421)), f"layer {layer}"
        own, shape = model.layers[layer].self_attn, pattern.shape(layer)
        assert (shape.group, shape.head_dim) == (own.num_key_value_groups, own.head_dim)
    config = transformers.Gemma4TextConfig(num_hidden_layers=real.layers)
    dense = [kind == "full_attention" for kind in config.layer_types]
    assert dense == [real.shard(layer, 0).dense for layer in range(real.layers)]


def test_sizes_windows_and_sinks_of_mimo() -> None:
    """Masks, KV heads, widths, and which layers have sinks; of all layers, which are dense by default."""
    sizes = {"heads": 4, "kv_heads": [1, 2], "head_dim": 24, "v_head_dim": 16}
    pattern, real = smaller("mimo_v2_flash", sizes, 193), language.load(PATTERNS / "mimo_v2_flash.yaml")
    torch.manual_seed(0)
    model = mimo().eval()
    with torch.no_grad():
        output = model(torch.randint(3, 32, (1, 421)), output_attentions=True)
    for layer, weights in enumerate(output.attentions):
        assert torch.equal(weights[0] > 0, reference.dense_mask(pattern, layer, 421)), f"layer {layer}"
        own, shape = model.layers[layer].self_attn, pattern.shape(layer)
        stated = shape.group, shape.head_dim, shape.v_head_dim, shape.sinks
        assert stated == (own.num_key_value_groups, own.head_dim, own.v_head_dim, own.sinks is not None)
    config = transformers.MiMoV2FlashConfig()
    dense = [kind == "full_attention" for kind in config.layer_types]
    assert dense == [real.shard(layer, 0).dense for layer in range(real.layers)]
    assert [real.heads, real.kv_heads, real.head_dim, real.v_head_dim, real.shape(1).kv_heads] == [64, 4, 192, 128, 8]
    assert real.shard(1, 0).local_tokens == (config.sliding_window, 1)


def test_a_window_off_by_one_is_seen() -> None:
    """Negative control."""
    text = (PATTERNS / "gpt_oss.yaml").read_text().replace("128 tokens", "129 tokens")
    pattern = language.loads(text)
    torch.manual_seed(0)
    with torch.no_grad():
        seen = gpt_oss().eval()(torch.randint(3, 32, (1, 200)), output_attentions=True).attentions[0][0, 0] > 0
    assert not torch.equal(seen, reference.mask(pattern, 0, 0, 200, 200))


def test_sizes_are_the_librarys_defaults() -> None:
    """Where the library's default configuration is the model's, the file states the same sizes."""
    for name, config in (("mistral_7b", transformers.MistralConfig()), ("bert_local", transformers.ModernBertConfig())):
        pattern = language.load(PATTERNS / f"{name}.yaml")
        assert pattern.heads == config.num_attention_heads
        assert pattern.kv_heads == getattr(config, "num_key_value_heads", config.num_attention_heads)
        assert pattern.layers == config.num_hidden_layers
        assert pattern.head_dim == config.hidden_size // config.num_attention_heads
    from transformers.models.step3p7.configuration_step3p7 import Step3p7TextConfig

    for name, config in (("laguna_xs", transformers.LagunaConfig()), ("step_35_flash", Step3p7TextConfig())):
        pattern = language.load(PATTERNS / f"{name}.yaml")
        stated = pattern.heads, pattern.kv_heads, pattern.head_dim, pattern.layers
        sizes = config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.num_hidden_layers
        assert stated == sizes
