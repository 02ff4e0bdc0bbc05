"""A small Llama trained with a package's attention follows the run with the dense mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.package.made import compiled

PATTERN = """
pattern: 1
name: llama
heads: 4
kv_heads: 2
head_dim: 16
layers: 2
block: 16
shards: [{heads: all, local: 1, stride: 3, offset: h}]
layouts: [{layers: 1, shards: [{heads: all, local: 21 tokens, sink: 3 tokens}]}]
promises: {}
"""
STEPS, LENGTH = 50, 75


def losses(attend: Any) -> list[float]:
    """Of 50 steps from equal weights on equal data: a text that repeats itself, so that there is something to learn."""
    from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register("patterned", attend)
    AttentionMaskInterface.register("patterned", lambda *_, **__: None)  # the pattern is the mask
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        attn_implementation="patterned",
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    text = torch.randint(0, 64, (2, 25)).repeat(1, 3)
    found = []
    for _ in range(STEPS):
        loss = model(input_ids=text, labels=text).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.peers
def test_fifty_steps_of_training() -> None:
    """Losses of about 4 differ by rounding only, some 1e-7 of them, which 50 steps of Adam may amplify: 1e-4. The
    control, a model whose layers take each other's shards, is farther away."""
    pytest.importorskip("transformers")
    pattern, package = compiled(PATTERN)

    def ours(module: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, scaling: float, **__: Any) -> tuple[Tensor, None]:
        return package.attention(q, k, v, layer=module.layer_idx, scale=scaling).transpose(1, 2), None

    def exchanged(module: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return package.attention(q, k, v, layer=1 - module.layer_idx).transpose(1, 2), None

    masks = [reference.dense_mask(pattern, layer, LENGTH) for layer in range(2)]

    def dense(module: Any, q: Tensor, k: Tensor, v: Tensor, *_: Any, scaling: float, **__: Any) -> tuple[Tensor, None]:
        k, v = (x.repeat_interleave(pattern.group, 1) for x in (k, v))
        scores = (q @ k.mT * scaling).masked_fill(~masks[module.layer_idx], float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2), None

    true = losses(dense)
    assert true[-1] < true[0] / 2, "it learns"
    assert max(abs(a - b) for a, b in zip(losses(ours), true, strict=True)) < 1e-4
    assert max(abs(a - b) for a, b in zip(losses(exchanged), true, strict=True)) > 1e-3
