"""Whether a model and an engine are what the pattern describes: refused with both numbers, else nothing is said."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from patterncc.errors import UsageError, size_of
from patterncc.integrations.place import place
from patterncc.integrations.scale import check_scale
from patterncc.integrations.sizes import has_sinks, sizes

KEY = "patterncc"  # of additional_config, and of the config.json of a model that was saved with its pattern


def named(additional_config: Any, model: Any = None) -> Any:
    """The pattern that `additional_config` gives, else the one of the model's configuration; None without either."""
    given = additional_config.get(KEY) if isinstance(additional_config, Mapping) else None
    return getattr(model, KEY, None) if given is None else given


def source_of(additional_config: Any, model: Any = None) -> str:
    """The pattern that is `named`, as text that each process of the engine can load: a name, an absolute path, or the
    text of a pattern. Raises UsageError where none is."""
    how = 'LLM(..., additional_config={"patterncc": "s2_hybrid"}), a shipped name, a path or the text of a pattern'
    given = named(additional_config, model)
    if isinstance(given, Mapping):
        return json.dumps(given, indent=1)
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        what = "names no pattern" if given is None else f"has {given!r} where a pattern should be"
        raise UsageError(f"the attention backend is patterncc's, and additional_config {what}", how)
    given = os.fspath(given)
    return os.path.abspath(given) if os.path.exists(given) else given


def check_model(package: ModuleType, model: Mapping[str, int], layer: int | None = None) -> None:
    """Raise UsageError where the model's numbers are not the pattern's: heads, kv_heads, head_dim, v_head_dim, layers,
    all of them of the whole model. Those that differ by layer are compared where the layer is given."""
    pattern = package.PATTERN
    of = "" if layer is None or "shapes" not in pattern else f" in layer {layer}"
    ours = {"v_head_dim": pattern["head_dim"], **{key: x for key, x in pattern.items() if x is not None}}
    if layer is not None:
        ours |= sizes(package, layer)
    for key, theirs in model.items():
        if ours.get(key) is not None and theirs != ours[key]:
            raise UsageError(
                f"the model has {size_of(key, theirs)}{of}, the pattern {pattern['name']} has {ours[key]}"
                f"{place(package, key)}"
            )
    if not pattern["causal"]:
        raise UsageError(
            f"the pattern {pattern['name']} is not causal{place(package, 'causal')}: a decoder's tokens see only what "
            "is before them"
        )


def check_layer(
    package: ModuleType,
    *,
    scale: float,
    softcap: float | None,
    alibi: bool,
    sliding_window: int | None,
    kv_cache_dtype: str,
    dtype: str,
    attn_type: str,
    shares_kv_with: str | None,
    others: Mapping[str, Any],
) -> None:
    """Raise UsageError for what a layer asks of its attention and the pattern does not say."""
    pattern = package.PATTERN
    name = pattern["name"]
    if attn_type != "decoder":
        raise UsageError(f"the layer is {attn_type} attention; a pattern describes a decoder's self attention")
    if alibi:
        raise UsageError("the model adds ALiBi biases to scores; a pattern adds nothing to them")
    if sliding_window is not None:
        raise UsageError(
            f"the model's configuration has a sliding window of {sliding_window} tokens, and the pattern "
            f"{name} says what is attended",
            'hf_overrides={"sliding_window": None}, and the window as `local: "N tokens"` in the pattern',
        )
    if kv_cache_dtype not in ("auto", dtype):
        raise UsageError(
            f"kv_cache_dtype is {kv_cache_dtype}, the model's dtype {dtype}: keys and queries have one dtype",
            'kv_cache_dtype="auto"',
        )
    if shares_kv_with is not None:
        raise UsageError(f"the layer reads the KV cache of {shares_kv_with}; patterns of two layers may differ")
    if (softcap or None) != (pattern.get("softcap") or None):
        raise UsageError(
            f"the model caps its scores at {softcap or None}, the pattern {name} at {pattern.get('softcap')}"
            f"{place(package, 'softcap')}",
            f"write `softcap: {float(softcap)}`" if softcap else "remove `softcap` from the pattern",
        )
    check_scale(package, scale)
    if unknown := [key for key, value in others.items() if value not in (None, False)]:
        raise UsageError(f"the layer asks for {', '.join(sorted(unknown))}, which patterncc's backend does not know")


def check_sinks(package: ModuleType, layer: int, theirs: bool) -> None:
    """Raise UsageError where a layer of the model has learned sinks and that of the pattern has none, or the other way
    round."""
    if theirs != has_sinks(package, layer):
        what = "has learned sinks, the pattern has none" if theirs else "has no learned sinks, the pattern has"
        raise UsageError(
            f"layer {layer} of the model {what}{place(package, 'sinks')}",
            "write `sinks: learned` for layers that have them, and only for these",
        )


def check_engine(
    *, speculative: bool, transfers_kv: bool, decode_context: int, prefill_context: int, is_hybrid: bool
) -> None:
    """Raise UsageError for parts of vLLM that were not tried with pages that die."""
    facts = (
        (speculative, "speculative decoding is on: drafts have layers that no pattern describes", "speculative_config"),
        (transfers_kv, "a KV connector is set: it moves pages, of which a pattern's are gone", "kv_transfer_config"),
        (decode_context > 1, "decode context parallelism splits pages over ranks", "decode_context_parallel_size"),
        (prefill_context > 1, "prefill context parallelism splits pages over ranks", "prefill_context_parallel_size"),
        (is_hybrid, "the model has layers that are no attention", ""),
    )
    for holds, what, option in facts:
        if holds:
            raise UsageError(what, f"leave out {option}" if option else None)
