"""The shape of a model, as far as attention and memory are concerned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patterncc.errors import UsageError
from patterncc.formats.imported import read_json, whole
from patterncc.formats.read_config import NESTED


@dataclass(frozen=True)
class ModelShape:
    """`weights`: how many numbers the model's weights are, None where only the attention's shape is known."""

    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    weights: int | None = None

    def kv_bytes(self, length: int, size: int = 2) -> int:
        """Bytes of a dense cache: K and V of `length` tokens in all layers, `size` bytes a number."""
        return 2 * length * self.layers * self.kv_heads * self.head_dim * size


def read_model(path: Path) -> ModelShape:
    """The shape that a transformers config.json, or its folder, says; raises UsageError."""
    if path.is_dir():
        path /= "config.json"
    if not path.exists():
        raise UsageError(f"there is no file {str(path)!r}", "--model takes a transformers config.json, or its folder")
    document = read_json(path)
    if not isinstance(document, dict):
        raise UsageError(f"{path} holds no object", "--model takes a transformers config.json")
    for key in NESTED:
        if isinstance(document.get(key), dict) and "num_attention_heads" not in document:
            document = document[key]
    heads = whole(document, "num_attention_heads", None, most=4096)
    kv_heads = whole(document, "num_key_value_heads", heads, most=4096)
    hidden = whole(document, "hidden_size", heads * 128)
    head_dim = whole(document, "head_dim", max(1, hidden // heads), most=1024)
    layers = whole(document, "num_hidden_layers", None, most=4096)
    return ModelShape(heads, kv_heads, head_dim, layers, _weights(document, heads, kv_heads, head_dim, hidden, layers))


def _weights(config: dict[str, Any], heads: int, kv_heads: int, head_dim: int, hidden: int, layers: int) -> int | None:
    """Attention, a gated MLP (of all experts), norms, embedding and output; None where the file lacks a size."""
    inner, words = config.get("intermediate_size"), config.get("vocab_size")
    if type(inner) is not int or type(words) is not int:
        return None
    experts = config.get("num_local_experts") or config.get("num_experts") or 1
    wide = config.get("moe_intermediate_size") or inner if experts != 1 else inner
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    mlp = 3 * hidden * wide * experts
    tied = 1 if config.get("tie_word_embeddings") else 2
    return layers * (attention + mlp + 2 * hidden) + tied * words * hidden + hidden
