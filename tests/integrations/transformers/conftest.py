"""Tiny random models, and the library's own eager attention under the dense mask of each head as their witness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from patterncc.language import Pattern, loads
from patterncc.reference import keeps

TOLERANCE = 2e-5  # largest difference of logits near 1 in float32, through three layers
LAYERS, HEADS, KV_HEADS, HEAD_DIM = 3, 4, 2, 16
TEXT = f"""pattern: 1
name: tiny
heads: {HEADS}
kv_heads: {KV_HEADS}
head_dim: {HEAD_DIM}
layers: {LAYERS}
block: 16
shards: [{{heads: all, local: 2, stride: 4, offset: h}}]
dense_layers: 0
"""
HEAD = TEXT.split("shards:")[0]
LOCAL_AND_GLOBAL = """layouts:
  - layers: [0, 2]
    shards: [{heads: all, local: 20 tokens}]
  - layers: [1]
    shards: [{heads: all, local: 2, stride: 4, offset: h}]
"""
WINDOWS = {"sliding_window": 20, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
# name: the library's family, what its pattern says beside heads and sizes, what its configuration says
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "", {}),
    "qwen3": ("Qwen3", "", {}),
    "mistral": ("Mistral", "", {"sliding_window": None}),
    "gemma2": (
        "Gemma2",
        LOCAL_AND_GLOBAL + "softcap: 0.5\n",
        WINDOWS | {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 1},
    ),
    "gemma3": ("Gemma3Text", LOCAL_AND_GLOBAL, WINDOWS | {"query_pre_attn_scalar": 16}),
    "gpt_oss": (
        "GptOss",
        LOCAL_AND_GLOBAL + "sinks: learned\n",
        WINDOWS | {"num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": None},
    ),
    "gemma4": (
        "Gemma4Text",
        """layouts:
  - layers: [0, 1]
    shards: [{heads: all, local: 20 tokens}]
  - layers: [2]
    head_dim: 32
    shards: [{heads: all, local: 2, stride: 4, offset: h}]
""",
        {
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "sliding_window": 20,
            "global_head_dim": 32, "attention_k_eq_v": False, "hidden_size_per_layer_input": 0,
        },
    ),
    "laguna": (
        "Laguna",
        LOCAL_AND_GLOBAL.replace("[0, 2]", "[0, 2]\n    heads: 6"),
        WINDOWS | {"num_attention_heads_per_layer": [6, 4, 6], "mlp_layer_types": ["dense"] * 3},
    ),
}  # fmt: skip
SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": LAYERS, "head_dim": HEAD_DIM,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "max_position_embeddings": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": None, "attention_dropout": 0.0,
}  # fmt: skip


def mask_of(pattern: Pattern, layer: int, length: int) -> torch.Tensor:
    """bool [heads, length, length] by the definition."""
    t = np.arange(length)
    heads = range(pattern.shape(layer).heads)
    return torch.from_numpy(np.stack([keeps(pattern, layer, head, t, t) for head in heads]))


def witness(pattern: Pattern) -> str:
    """An attention implementation that applies the dense mask of each head by the model's own eager attention."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    masks: dict[tuple[int, int], torch.Tensor] = {}

    def attend(
        module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, dropout: float = 0.0, **rest: Any
    ) -> Any:
        import importlib

        key = (module.layer_idx, k.shape[2])
        if key not in masks:
            kept = mask_of(pattern, *key)
            masks[key] = torch.zeros(kept.shape).masked_fill(~kept, torch.finfo(torch.float32).min)
        own = masks[key][None, :, -q.shape[2] :]
        if mask is not None:
            own = torch.minimum(own, mask[..., : k.shape[2]])
        eager = importlib.import_module(type(module).__module__).eager_attention_forward
        return eager(module, q, k, v, own.to(q.dtype), scaling=scaling, dropout=dropout, **rest)

    AttentionInterface.register("witness", attend)
    AttentionMaskInterface.register("witness", eager_mask)
    return "witness"


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    """A model of a family with random weights."""

    def make(family: str, **changes: Any) -> Any:
        import transformers

        torch.manual_seed(1)
        sizes = SIZES | changes
        if not hasattr(transformers, f"{family}Config"):
            pytest.skip(f"transformers {transformers.__version__} has no {family}")
        config = getattr(transformers, f"{family}Config")(**sizes)
        model = getattr(transformers, f"{family.removesuffix('Text')}ForCausalLM")(config).eval()
        for layer in model.model.layers:
            if hasattr(layer.self_attn, "sinks"):  # zeros of a new model tell nothing
                torch.nn.init.normal_(layer.self_attn.sinks)
            if sizes.get("attn_logit_softcapping"):  # scores that reach the cap
                layer.self_attn.q_proj.weight.data *= 20
        return model

    return make


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The package of a pattern text, and the pattern."""
    import patterncc

    folder: Path = tmp_path_factory.mktemp("patterns")
    known: dict[str, Any] = {}

    def make(text: str = TEXT) -> Any:
        if text not in known:
            path = folder / f"p{len(known)}" / "tiny.yaml"
            path.parent.mkdir()
            path.write_text(text)
            known[text] = patterncc.load(path), loads(text)
        return known[text]

    return make


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest, build: Any, compiled: Any) -> Any:
    """A model of each family, and the package and the pattern that fit it."""
    name, said, changes = FAMILIES[request.param]
    text = TEXT.split("shards:")[0].replace("name: tiny", f"name: {request.param}") + said if said else TEXT
    return build(name, **changes), *compiled(text)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(3, 97, (2, 85), generator=torch.Generator().manual_seed(5))  # no multiple of a block
