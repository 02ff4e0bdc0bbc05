"""The shape of a model, as far as attention and memory are concerned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patterncc.errors import UsageError
from patterncc.formats.config_defaults import text_config
from patterncc.formats.imported import meant, read_json, whole
from patterncc.formats.places import located
from patterncc.formats.read_config import read_config, widths
from patterncc.formats.read_sizes import BY_KIND
from patterncc.language.shape import Shape as LayerShape


@dataclass(frozen=True)
class ModelShape:
    """`weights`: how many numbers the model's weights are, None where only the attention's shape is known."""

    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    weights: int | None = None
    v_head_dim: int = 0  # width of a value; given as 0, that of a head
    by_layer: tuple[LayerShape, ...] = ()  # of every layer, where layers differ; the sizes above are the file's own

    def __post_init__(self) -> None:
        object.__setattr__(self, "v_head_dim", self.v_head_dim or self.head_dim)

    def kv_bytes(self, length: int, size: int = 2) -> int:
        """Bytes of a dense cache: K and V of `length` tokens in all layers, `size` bytes a number."""
        return length * self.layers * self.kv_heads * (self.head_dim + self.v_head_dim) * size


def read_model(path: Path) -> ModelShape:
    """The shape that a transformers config.json, or its folder, says; raises UsageError."""
    if path.is_dir():
        path /= "config.json"
    if not path.exists():
        raise UsageError(f"there is no file {str(path)!r}", "--model takes a transformers config.json, or its folder")
    with located(path):
        return _read(path)


def _read(path: Path) -> ModelShape:
    document = read_json(path)
    if not isinstance(document, dict):
        raise UsageError("the file holds no object", "--model takes a transformers config.json", str(path))
    document = text_config(document)
    heads = whole(document, "num_attention_heads", None, most=4096)
    kv_heads = whole(document, "num_key_value_heads", heads, most=4096)
    hidden = whole(document, "hidden_size", heads * 128)
    dim, v_dim = widths(document, heads, hidden)
    layers = whole(document, "num_hidden_layers", None, most=4096)
    shape = ModelShape(heads, kv_heads, dim, layers, v_head_dim=v_dim)
    return replace(shape, weights=_weights(document, shape, hidden), by_layer=_by_layer(document))


def _by_layer(document: dict[str, Any]) -> tuple[LayerShape, ...]:
    """The shape of every layer, for models whose layers may differ in theirs; none for others."""
    if document.get("model_type") not in BY_KIND:
        return ()
    shapes = meant(read_config(document, "model").yaml).shapes
    return shapes if len(set(shapes)) > 1 else ()


def _weights(config: dict[str, Any], shape: ModelShape, hidden: int) -> int | None:
    """Attention, a gated MLP (of all experts), norms, embedding and output; None where the file lacks a size."""
    inner, words = config.get("intermediate_size"), config.get("vocab_size")
    if type(inner) is not int or type(words) is not int:
        return None
    experts = config.get("num_local_experts") or config.get("num_experts") or 1
    wide = config.get("moe_intermediate_size") or inner if experts != 1 else inner
    wide_k, wide_v = shape.head_dim, shape.v_head_dim
    attention = hidden * (shape.heads + shape.kv_heads) * (wide_k + wide_v)
    if type(rank := config.get("kv_lora_rank")) is int:  # latent attention: K and V come from so many numbers a token
        turned, q_rank = whole(config, "qk_rope_head_dim", 0, least=0), config.get("q_lora_rank") or 0
        queries = q_rank * (hidden + shape.heads * wide_k) if q_rank else hidden * shape.heads * wide_k
        keys = hidden * (rank + turned) + rank * shape.kv_heads * (wide_k - turned + wide_v)
        attention = queries + keys + shape.heads * wide_v * hidden
    mlp = 3 * hidden * wide * experts
    tied = 1 if config.get("tie_word_embeddings") else 2
    return shape.layers * (attention + mlp + 2 * hidden) + tied * words * hidden + hidden
