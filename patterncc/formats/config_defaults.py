"""What transformers takes for keys that a config.json leaves out: the values of its configuration classes.

`save_pretrained` leaves out of a nested configuration (`text_config`) whatever equals them. A key that is not here has
no value of its own: KV heads are then the heads, and a head is as wide as hidden_size / heads.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
TEXT_KINDS = {"gemma3": "gemma3_text", "gemma4": "gemma4_text", "llama4": "llama4_text"}  # that a larger model nests


def _sizes(hidden: int, heads: int, layers: int, kv_heads: int | None = None, head_dim: int | None = None) -> Config:
    sizes = {"hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers}
    sizes |= {"num_key_value_heads": kv_heads} if kv_heads else {}
    return sizes | ({"head_dim": head_dim} if head_dim else {})


_QWEN = {"max_window_layers": 28, "use_sliding_window": False}

DEFAULTS: dict[str, Config] = {
    "afmoe": _sizes(2048, 16, 32, head_dim=128) | {"sliding_window": 1024},
    "bert": _sizes(768, 12, 12),
    "big_bird": _sizes(768, 12, 12),
    "cohere2": _sizes(8192, 64, 40) | {"sliding_window": 4096},
    "deberta-v2": _sizes(1536, 24, 24),
    "deepseek_v3": _sizes(7168, 128, 61, 128) | {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
    "electra": _sizes(256, 4, 12),
    "exaone4": _sizes(4096, 32, 32, 32) | {"sliding_window": 4096},
    "gemma2": _sizes(2304, 8, 26, 4, 256)
    | {"sliding_window": 4096, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0},
    "gemma3_text": _sizes(2304, 8, 26, 4, 256) | {"sliding_window": 4096, "query_pre_attn_scalar": 256},
    "gemma4_text": _sizes(2304, 8, 30, 4, 256) | {"sliding_window": 512},
    "gpt_oss": _sizes(2880, 64, 36, 8, 64) | {"sliding_window": 128},
    "granite": _sizes(4096, 32, 32) | {"attention_multiplier": 1.0},
    "laguna": _sizes(2048, 48, 40, 8, 128) | {"sliding_window": 512},
    "llama": _sizes(4096, 32, 32),
    "llama4_text": _sizes(5120, 40, 48, 8, 128),
    "longformer": _sizes(768, 12, 12),
    "mimo_v2_flash": _sizes(4096, 64, 48, 4, 192) | {"sliding_window": 129, "v_head_dim": 128},
    "mistral": _sizes(4096, 32, 32, 8) | {"sliding_window": 4096},
    "mixtral": _sizes(4096, 32, 32, 8),
    "modernbert": _sizes(768, 12, 22),
    "olmo3": _sizes(4096, 32, 32) | {"sliding_window": 4096},
    "phi3": _sizes(3072, 32, 32),
    "qwen2": _sizes(4096, 32, 32, 32) | _QWEN,
    "qwen2_moe": _sizes(2048, 16, 24, 16) | _QWEN,
    "qwen3": _sizes(4096, 32, 32, 32, 128) | _QWEN,
    "qwen3_moe": _sizes(2048, 32, 24, 4) | {"use_sliding_window": False},
    "roberta": _sizes(768, 12, 12),
    "smollm3": _sizes(2048, 16, 36, 4) | {"use_sliding_window": False},
    "starcoder2": _sizes(3072, 24, 30, 2),
    "step3p5": _sizes(4096, 64, 45, 8, 128),
}


def text_config(document: Config) -> Config:
    """The configuration of the model that reads text, nested in a larger one or not, with its model_type, and with the
    values of its class for the keys that it leaves out.

    Where a file states other heads than the class, but not what depends on them, two of the class's values are left
    out: its hidden_size, and its KV heads where they cannot be shared evenly.

    >>> text_config({"model_type": "gemma3", "text_config": {"num_hidden_layers": 34}})["head_dim"]
    256
    """
    kind = str(document.get("model_type", ""))
    for key in NESTED:
        if isinstance(document.get(key), dict) and "num_attention_heads" not in document:
            document = document[key]
            kind = str(document.get("model_type", kind))
    kind = TEXT_KINDS.get(kind, kind)
    usual = DEFAULTS.get(kind, {})
    found = usual | document | {"model_type": kind}
    has_other_heads = found.get("num_attention_heads") != usual.get("num_attention_heads")
    if has_other_heads and "hidden_size" not in document:
        found.pop("hidden_size", None)
    if "num_key_value_heads" not in document:
        heads, kv_heads = found.get("num_attention_heads"), found.get("num_key_value_heads")
        if type(heads) is int and type(kv_heads) is int and heads % kv_heads:
            del found["num_key_value_heads"]
    return found
