"""A transformers `config.json` → the pattern of its attention layers.

What a layer keeps is read from `layer_types` where the file has it, else from the rule of its `model_type`, as the
library's own configuration classes apply it. Layers whose attention is no static pattern (linear, recurrent, sparse
by content) are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from patterncc.errors import counted, quote
from patterncc.formats.config_defaults import text_config
from patterncc.formats.imported import Imported, numbers, whole
from patterncc.formats.places import WrongValue
from patterncc.formats.read_scale import scale_of
from patterncc.formats.read_sizes import sizes_of
from patterncc.formats.rules import DENSE, Rule, Shape, to_yaml
from patterncc.language.limits import MOST_HEAD_DIM

Config = dict[str, Any]
ENCODERS = {"bert", "roberta", "modernbert", "longformer", "big_bird", "electra", "deberta-v2"}
SINKS = {"gpt_oss"}  # model types with a learned sink logit a head


def read_config(document: Config, name: str) -> Imported:
    """The pattern that the configuration means; raises UsageError where it is not static or not known."""
    document = text_config(document)
    kind = document["model_type"]
    layers = whole(document, "num_hidden_layers", None, most=4096)
    heads = whole(document, "num_attention_heads", None, most=4096)
    kv_heads = whole(document, "num_key_value_heads", heads, most=4096)
    hidden = whole(document, "hidden_size", heads * 128)
    head_dim, v_head_dim = widths(document, heads, hidden)
    notes: list[str] = []
    rules = [_rule(document, kind, layer, layers, notes) for layer in range(layers)]
    causal = kind not in ENCODERS
    block = 64
    if kind == "longformer":
        block = 64
        notes.append("tokens that a task makes global are not in the configuration: add `globals` for them")
    if kind == "big_bird":
        block = whole(document, "block_size", 64)
        if block not in (16, 32, 64, 128):
            raise WrongValue("block_size", f"`block_size` is {block}; a pattern's block is 16, 32, 64 or 128")
        notes.append("BigBird's second global block is the last of the sequence; here it is the second one")
    extra = [("v_head_dim", str(v_head_dim))] if v_head_dim != head_dim else []
    sizes = [sizes_of(document, kind, layer, rule == DENSE) for layer, rule in enumerate(rules)]
    softcap = document.get("attn_logit_softcapping")
    if softcap is not None:
        if isinstance(softcap, bool) or not isinstance(softcap, int | float) or not 0 < softcap < 1e6:
            raise WrongValue(
                "attn_logit_softcapping",
                f"`attn_logit_softcapping` is {quote(str(softcap), 40)}; expected a positive number",
            )
        extra.append(("softcap", repr(float(softcap))))
    scale = scale_of(document, kind)
    if scale is not None and {size.get("head_dim", head_dim) for size in sizes} != {scale**-2}:
        extra.append(("scale", repr(scale)))
    if kind in SINKS:
        extra.append(("sinks", "learned"))
    about = f"Attention layers of a {kind or 'transformers'} configuration."
    shape = Shape(name, about, heads, kv_heads, head_dim, layers, block, causal, tuple(extra))
    yaml = to_yaml(
        shape, [[rule] for rule in rules], [f"Source: transformers config.json, model_type {kind}.", *notes], sizes
    )
    return Imported(name, yaml, "transformers", kind not in ("longformer", "big_bird"), tuple(notes))


def widths(config: Config, heads: int, hidden: int) -> tuple[int, int]:
    """The widths of a head and of a value; where heads have a part that is rotated and one that is not (latent
    attention), of both together."""
    parts = config.get("qk_nope_head_dim"), config.get("qk_rope_head_dim")
    if all(type(part) is int for part in parts):
        head_dim = sum(
            whole(config, key, None, least=0, most=MOST_HEAD_DIM) for key in ("qk_nope_head_dim", "qk_rope_head_dim")
        )
    else:
        head_dim = whole(config, "head_dim", max(1, hidden // heads), most=MOST_HEAD_DIM)
    return head_dim, whole(config, "v_head_dim", head_dim, most=MOST_HEAD_DIM)


def _rule(config: Config, kind: str, layer: int, layers: int, notes: list[str]) -> Rule:
    if kind in BY_KIND:
        return BY_KIND[kind](config, layer)
    types = config.get("layer_types")
    if types is not None:
        if not isinstance(types, list) or len(types) < layers:
            raise WrongValue("layer_types", f"`layer_types` must be a list of {counted(layers, 'name')}, one a layer")
        return _typed(config, str(types[layer]), layer)
    if kind in SLIDING:
        return _window(config) if SLIDING[kind](config, layer) else DENSE
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        if not notes:
            notes.append(f"every layer takes the sliding window: no rule for model_type {kind!r} says otherwise")
        return _window(config)
    return DENSE


def _typed(config: Config, kind: str, layer: int) -> Rule:
    if kind in ("full_attention", "attention", "global_attention"):
        return DENSE
    if kind in ("sliding_attention", "local_attention", "sliding_window"):
        return _window(config)
    if kind == "chunked_attention":
        return Rule(chunk=f"{whole(config, 'attention_chunk_size', None)} tokens")
    raise WrongValue(
        ("layer_types", layer),
        f"layer {layer} is {quote(kind, 40)}, which is no static pattern of blocks",
        "patterncc says full, sliding and chunked attention; see the limits in the README",
    )


def _window(config: Config) -> Rule:
    if config.get("sliding_window_size") is not None and config.get("model_type") == "mimo_v2_flash":
        return Rule(local=f"{whole(config, 'sliding_window_size', None) + 1} tokens")  # so many before the query
    return Rule(local=f"{whole(config, 'sliding_window', None)} tokens")


def _every(key: str, default: int) -> Callable[[Config, int], bool]:
    """The rule that all layers slide except every n-th one, n under `key`."""
    return lambda config, layer: (layer + 1) % whole(config, key, default) != 0


def _qwen(config: Config, layer: int) -> bool:
    return bool(config.get("use_sliding_window")) and layer >= whole(config, "max_window_layers", 0, least=0)


SLIDING: dict[str, Callable[[Config, int], bool]] = {
    "afmoe": _every("global_attn_every_n_layers", 4),
    "gemma2": lambda _, layer: layer % 2 == 0,
    "gpt_oss": lambda _, layer: layer % 2 == 0,
    "gemma3_text": _every("sliding_window_pattern", 6),
    "cohere2": _every("sliding_window_pattern", 4),
    "exaone4": lambda config, layer: (layer + 1) % 4 != 0 and bool(config.get("sliding_window")),
    "gemma4_text": lambda config, layer: (layer + 1) % 6 != 0 and layer + 1 != config["num_hidden_layers"],
    "mimo_v2_flash": lambda _, layer: layer > 0 and (layer + 1) % 6 != 0,
    "olmo3": lambda _, layer: (layer + 1) % 4 != 0,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "qwen2_moe": _qwen,
    "qwen3_moe": _qwen,
    "mistral": lambda config, _: bool(config.get("sliding_window")),
    "mixtral": lambda config, _: bool(config.get("sliding_window")),
    "phi3": lambda config, _: bool(config.get("sliding_window")),
    "starcoder2": lambda config, _: bool(config.get("sliding_window")),
}


def _llama4(config: Config, layer: int) -> Rule:
    types = config.get("layer_types")
    if isinstance(types, list) and len(types) > layer:
        return _typed(config, str(types[layer]), layer)
    rotary = config.get("no_rope_layers") or []
    if not isinstance(rotary, list):
        raise WrongValue(
            "no_rope_layers", f"`no_rope_layers` is {quote(str(rotary), 40)}; expected a list, one a layer"
        )
    interval = whole(config, "no_rope_layer_interval", 4)
    chunked = bool(rotary[layer]) if len(rotary) > layer else (layer + 1) % interval != 0
    size = config.get("attention_chunk_size", 8192)
    return Rule(chunk=f"{whole(config, 'attention_chunk_size', 8192)} tokens") if chunked and size else DENSE


def _longformer(config: Config, layer: int) -> Rule:
    windows = numbers(config, "attention_window", [512])
    window = windows[layer] if len(windows) > layer else windows[0] if len(windows) == 1 else None
    if window is None or window < 2:
        raise WrongValue("attention_window", "`attention_window` must be a number of 2 or more, or one a layer")
    reach = f"{window // 2 + 1} tokens"
    return Rule(local=(reach, reach))


def _big_bird(config: Config, layer: int) -> Rule:
    if config.get("attention_type", "block_sparse") == "original_full":
        return DENSE
    drawn = whole(config, "num_random_blocks", 3, least=0)
    return Rule(local=2, rows=(0, 1), columns=(0, 1), random=(drawn, layer) if drawn else None)


def _modernbert(config: Config, layer: int) -> Rule:
    if layer % whole(config, "global_attn_every_n_layers", 3) == 0:
        return DENSE
    reach = f"{whole(config, 'local_attention', 128) // 2 + 1} tokens"
    return Rule(local=(reach, reach))


BY_KIND: dict[str, Callable[[Config, int], Rule]] = {
    "llama4_text": _llama4,
    "longformer": _longformer,
    "big_bird": _big_bird,
    "modernbert": _modernbert,
}
