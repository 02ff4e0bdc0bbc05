"""Sinks and soft-capping as the transformers library computes them: tiny random models with its eager attention, and
with the package's in its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.package.made import compiled

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

TINY = {"hidden_size": 32, "intermediate_size": 32, "vocab_size": 32, "num_attention_heads": 4, "head_dim": 16}
TINY |= {"num_key_value_heads": 2, "num_hidden_layers": 2, "sliding_window": 21, "pad_token_id": 0}
LAYERS = """pattern: 1
name: tiny
heads: 4
kv_heads: 2
head_dim: 16
layers: 2
block: 16
dense_layers: 1
shards: [{heads: all, local: 21 tokens}]
"""
TOLERANCE = 2e-5  # two float32 layers with norms between them, of numbers of order one


def hidden(model: Any, attend: Any = None) -> Tensor:
    """The last hidden states of 67 tokens, with eager attention or with another function in its place."""
    if attend is not None:
        transformers.AttentionInterface.register("tiny", attend)
        transformers.AttentionMaskInterface.register("tiny", transformers.masking_utils.eager_mask)
    model.set_attn_implementation("eager" if attend is None else "tiny")
    torch.manual_seed(1)
    with torch.no_grad():
        return model.eval()(torch.randint(3, 32, (2, 67))).last_hidden_state


def attended(package: Any, **more: Any) -> Any:
    """The package's attention as the library calls it."""

    def attend(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float, **given: Any) -> Any:
        sinks = given.get("s_aux")
        out = package.attention(q, k, v, layer=module.layer_idx, scale=scaling, sinks=more.get("sinks", sinks))
        return out.transpose(1, 2).contiguous(), None

    return attend


def test_the_sinks_of_gpt_oss() -> None:
    torch.manual_seed(0)
    config = transformers.GptOssConfig(**TINY, num_local_experts=2, num_experts_per_tok=1)
    model = transformers.GptOssModel(config)
    for layer in model.layers:
        layer.self_attn.sinks.data.normal_()
    _, package = compiled(LAYERS + "sinks: learned\n")
    eager = hidden(model)
    assert (hidden(model, attended(package)) - eager).abs().max() < TOLERANCE
    none = torch.full((4,), float("-inf"))
    assert (hidden(model, attended(package, sinks=none)) - eager).abs().max() > 0.01  # negative control


def test_the_soft_capping_of_gemma_2() -> None:
    torch.manual_seed(0)
    config = transformers.Gemma2Config(**TINY, attn_logit_softcapping=0.5, query_pre_attn_scalar=1)
    model = transformers.Gemma2Model(config)
    for layer in model.layers:  # larger scores than those of a new model
        layer.self_attn.q_proj.weight.data *= 20
    eager = hidden(model)
    _, package = compiled(LAYERS + "softcap: 0.5\n")
    assert (hidden(model, attended(package)) - eager).abs().max() < TOLERANCE
    _, without = compiled(LAYERS)
    assert (hidden(model, attended(without)) - eager).abs().max() > 0.01  # negative control
