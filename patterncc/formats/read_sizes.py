"""Sizes of single layers in a transformers `config.json`: heads, KV heads and widths, as its own classes read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from patterncc.errors import counted
from patterncc.formats.imported import numbers, whole
from patterncc.formats.places import WrongValue

Config = dict[str, Any]
Sizes = dict[str, int | str]  # by the keys of an entry of `layouts`: heads, kv_heads, head_dim, sinks


def sizes_of(config: Config, kind: str, layer: int, is_full: bool) -> Sizes:
    """The sizes of a layer that differ from the file's own; `is_full`: it attends to everything."""
    return BY_KIND[kind](config, layer, is_full) if kind in BY_KIND else {}


def _laguna(config: Config, layer: int, _: bool) -> Sizes:
    heads = numbers(config, "num_attention_heads_per_layer", [])
    if heads and len(heads) <= layer:
        raise WrongValue(
            "num_attention_heads_per_layer",
            f"`num_attention_heads_per_layer` has {counted(len(heads), 'entry', 'entries')}, "
            f"and none for layer {layer}",
        )
    return {"heads": heads[layer]} if heads else {}


def _step(config: Config, _: int, is_full: bool) -> Sizes:
    other = config.get("attention_other_setting") or {}
    heads = config.get("num_sliding_attention_heads") or (isinstance(other, dict) and other.get("num_attention_heads"))
    return {} if is_full or not heads else {"heads": whole({"heads": heads}, "heads", None, most=4096)}


def _gemma4(config: Config, _: int, is_full: bool) -> Sizes:
    if not is_full:
        return {}
    found: Sizes = {"head_dim": whole(config, "global_head_dim", 512, most=1024)}
    if config.get("attention_k_eq_v") and config.get("num_global_key_value_heads") is not None:
        found["kv_heads"] = whole(config, "num_global_key_value_heads", None, most=4096)
    return found


def _mimo(config: Config, _: int, is_full: bool) -> Sizes:
    if is_full:
        return {}
    kv_heads = whole(config, "swa_num_key_value_heads", 2 * whole(config, "num_key_value_heads", 4), most=4096)
    return {"kv_heads": kv_heads, "sinks": "learned"}


BY_KIND: dict[str, Callable[[Config, int, bool], Sizes]] = {
    "laguna": _laguna,
    "step3p5": _step,
    "gemma4_text": _gemma4,
    "mimo_v2_flash": _mimo,
}
