"""Whether a Megatron model is what the pattern describes, and what it asks for that a pattern does not do."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from patterncc.errors import UsageError, size_of
from patterncc.integrations.place import place
from patterncc.integrations.scale import check_scale
from patterncc.integrations.sizes import sizes

ASKED = (  # of a configuration: what changes attention, or goes round it; its name, its plain value, words, what to do
    ("window_size", None, "a window of Megatron's own, and the pattern says what is attended", "say it in the pattern"),
    ("softmax_type", "vanilla", "a softmax with one more term in its sum, which Megatron's own attention adds", ""),
    ("qk_clip", False, "the largest scores of each head, which are never looked at", ""),
    ("log_max_attention_logit", False, "the largest scores of each head, which are never looked at", ""),
    ("flash_decode", False, "decoding by flash-attention, which attends to every key", "set flash_decode=False"),
)


def check_model(
    package: ModuleType,
    layer: int,
    config: Any,
    *,
    kind: str | None,
    dropout: float | None,
    scale: float | None,
    k_channels: int | None,
    v_channels: int | None,
    ranks: int,
) -> None:
    """Raise UsageError for a model that is not the pattern's, or asks for what a pattern does not do."""
    pattern = package.PATTERN
    if "shapes" in pattern:
        raise UsageError(
            f"the layers of the pattern {pattern['name']} differ in heads or widths; Megatron's layers have one "
            "configuration, so one shape for all"
        )
    groups = config.num_query_groups or config.num_attention_heads
    facts = [("layers", config.num_layers, pattern["layers"])]
    if layer < pattern["layers"]:
        size = sizes(package, layer)
        facts += [
            ("heads", config.num_attention_heads, size["heads"]),
            ("kv_heads", groups, size["kv_heads"]),
            ("head_dim", k_channels or config.kv_channels, size["head_dim"]),
            ("v_head_dim", v_channels or config.kv_channels, size["v_head_dim"]),
        ]
    for key, theirs, ours in facts:
        if theirs != ours:
            help = None
            if key == "kv_heads" and theirs == ranks > ours:
                help = f"Megatron says one a tensor-parallel rank where ranks are more: take at most {ours} of these"
            where = place(package, key)
            raise UsageError(
                f"the model has {size_of(key, theirs)}, the pattern {pattern['name']} has {ours}{where}", help
            )
    if layer >= pattern["layers"]:
        raise UsageError(
            f"layer {layer} is behind the {size_of('layers', pattern['layers'])} of the pattern {pattern['name']}: one "
            "of multi-token prediction",
            "give mtp_block_spec a layer whose core attention is Megatron's own",
        )
    if kind not in ("self", None):
        raise UsageError(f"the layer is {kind} attention; a pattern describes self attention")
    if config.attention_dropout if dropout is None else dropout:
        raise UsageError("attention_dropout is set: patterns have none", "set attention_dropout=0.0")
    for name, plain, words, help in ASKED:
        if getattr(config, name, plain) != plain:
            raise UsageError(f"{name} is {getattr(config, name)}: it asks for {words}", help or None)
    if scale is not None:  # else the pattern's, or head_dim ** -0.5
        check_scale(package, scale)
    for key, words in (("softcap", "soft-capped scores"), ("sinks", "learned sinks")):
        if pattern.get(key) is not None:
            raise UsageError(f"the pattern has {words}, which Megatron's layers do not pass on")
