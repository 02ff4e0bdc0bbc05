"""DeepSeek's latent attention, whose values are narrower than its keys: under a pattern, against eager attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.integrations.transformers.conftest import TEXT
from tests.integrations.transformers.test_models import TOLERANCE, both

pytestmark = pytest.mark.peers
LATENT = TEXT.replace("kv_heads: 2", "kv_heads: 4").replace("head_dim: 16", "head_dim: 24\nv_head_dim: 16")
SIZES = {
    "num_key_value_heads": 4, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "head_dim": 8,
    "q_lora_rank": 24, "kv_lora_rank": 20, "first_k_dense_replace": 3, "n_routed_experts": 4, "n_group": 1,
    "topk_group": 1, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
}  # fmt: skip


def test_forward_and_gradients(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    package, pattern = compiled(LATENT)
    model = build("DeepseekV3", **SIZES)
    gradients = []
    for logits in both(model, package, pattern, input_ids=tokens):
        model.zero_grad()
        logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        gradients.append(logits.detach())
    assert (gradients[1] - gradients[3]).abs().max() < TOLERANCE
    for ours, theirs in zip(gradients[0], gradients[2], strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6  # float32, sums over 170 tokens


def test_padding_and_a_cache(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    """Left-padded rows equal the same tokens alone, at once and token by token from transformers' own cache."""
    from transformers import DynamicCache

    from patterncc.integrations.transformers import register

    package, _ = compiled(LATENT.replace("offset: h", "offset: g"))
    model = build("DeepseekV3", **SIZES)
    model.set_attn_implementation(register(package))
    mask = torch.ones_like(tokens)
    mask[1, :23] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = model(input_ids=tokens, attention_mask=mask, position_ids=positions).logits
    alone = model(input_ids=tokens[1:, 23:]).logits
    assert (padded[1, 23:] - alone[0]).abs().max() < TOLERANCE
    cache, parts = DynamicCache(), []
    for first, stop in ((0, 80), (80, 81), (81, 85)):
        given = {"attention_mask": mask[:, :stop], "position_ids": positions[:, first:stop]}
        parts.append(model(input_ids=tokens[:, first:stop], past_key_values=cache, **given).logits)
    assert (torch.cat(parts, 1)[1, 23:] - alone[0]).abs().max() < TOLERANCE


def test_a_cache_of_latents_is_refused(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    """Where transformers caches what keys and values are computed from, not these."""
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import PatternCache, register

    package, _ = compiled(LATENT.replace("offset: h", "offset: g"))
    model = build("DeepseekV3", **SIZES)
    model.set_attn_implementation(register(package))
    try:
        first = model(input_ids=tokens[:, :80], past_key_values=PatternCache(model)).logits
    except UsageError as error:
        assert "the model caches 20 and 8 numbers a token, the pattern tiny has keys of 24 and values of 16" in str(
            error
        )
    else:  # an older transformers, which caches keys and values
        cache = PatternCache(model)
        assert torch.equal(model(input_ids=tokens[:, :80], past_key_values=cache).logits, first)
        last = model(input_ids=tokens[:, 80:], past_key_values=cache).logits
        assert (last - model(input_ids=tokens).logits[:, 80:]).abs().max() < TOLERANCE


def test_another_width_of_values_is_refused(build: Any, compiled: Any, tokens: torch.Tensor) -> None:
    from patterncc.errors import UsageError
    from patterncc.integrations.transformers import register

    package, _ = compiled(LATENT)
    model = build("DeepseekV3", **SIZES | {"v_head_dim": 12})
    model.set_attn_implementation(register(package))
    with pytest.raises(UsageError, match=r"12 numbers a value, the pattern tiny has 16 \(line 6: v_head_dim: 16\)"):
        model(input_ids=tokens)
