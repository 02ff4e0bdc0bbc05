"""config.json of each model whose pattern is static → the pattern, against what the library's eager attention lets see.

Where a weight is positive, the library let the query see the key. Queries are zero, so that no weight underflows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patterncc.formats.importing import import_pattern
from patterncc.language import loads
from patterncc.reference import keeps

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.peers

LENGTH, LAYERS = 75, 8
SIZES = {
    "hidden_size": 64, "intermediate_size": 16, "vocab_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "num_hidden_layers": LAYERS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
PLAIN = {key: value for key, value in SIZES.items() if key not in ("head_dim", "num_key_value_heads")}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("Mistral", {"sliding_window": 20}),
    "gemma2": ("Gemma2", {"sliding_window": 20}),
    "gemma3": ("Gemma3Text", {"sliding_window": 20}),
    "gemma4": ("Gemma4Text", {"sliding_window": 20, "hidden_size_per_layer_input": 0}),
    "gpt_oss": ("GptOss", {"sliding_window": 20, "rope_parameters": None} | EXPERTS),
    "llama4": ("Llama4Text", {"attention_chunk_size": 64, "intermediate_size_mlp": 16} | EXPERTS),
    "exaone4": ("Exaone4", {"sliding_window": 20, "sliding_window_pattern": 4}),
    "olmo3": ("Olmo3", {"sliding_window": 20}),
    "smollm3": ("SmolLM3", {"use_sliding_window": True, "sliding_window": 20}),
    "command_a": ("Cohere2", {"sliding_window": 20}),
    "trinity": ("Afmoe", {"sliding_window": 20, "moe_intermediate_size": 16, "num_experts": 2, "num_dense_layers": 8}),
    "qwen3": ("Qwen3", {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 3}),
    "phi3": ("Phi3", {"sliding_window": 20}),
    "starcoder2": ("Starcoder2", {"sliding_window": 20}),
    "modernbert": ("ModernBert", {"local_attention": 20, "cls_token_id": 1, "sep_token_id": 2}),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_pattern_is_the_models(tmp_path: Path, name: str) -> None:
    family, said = MODELS[name]
    if not hasattr(transformers, f"{family}Config"):
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    config = getattr(transformers, f"{family}Config")(**((PLAIN if name == "modernbert" else SIZES) | said))
    config.save_pretrained(tmp_path)
    pattern = loads(import_pattern(str(tmp_path), name=name).yaml)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}Model")._from_config(config, attn_implementation="eager").eval()
    for key, weight in model.named_parameters():
        if "q_proj" in key:
            weight.data.zero_()
    with torch.no_grad():
        output = model(torch.randint(3, 32, (1, LENGTH)), output_attentions=True)
    assert len(output.attentions) == pattern.layers == LAYERS
    t = np.arange(LENGTH)
    for layer, weights in enumerate(output.attentions):
        seen = weights[0, :, :, :LENGTH] > 0
        ours = np.stack([keeps(pattern, layer, head, t, t) for head in range(seen.shape[0])])
        assert np.array_equal(seen.numpy(), ours), f"layer {layer}: {np.argwhere(seen.numpy() != ours)[0]}"
    assert (pattern.sinks == "learned") == (name == "gpt_oss")
    scales = {getattr(module, "scaling", None) for key, module in model.named_modules() if key.endswith("self_attn")}
    if scales - {None}:
        assert {pattern.scale or pattern.shape(layer).head_dim ** -0.5 for layer in range(LAYERS)} == scales
    assert (pattern.softcap or None) == (50 if name == "gemma2" else None)
