"""Whether a model's attention layer is what the pattern describes, and what it asks for that a pattern does not do."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor, nn

from patterncc.errors import UsageError, size_of
from patterncc.integrations.place import place
from patterncc.integrations.scale import check_scale
from patterncc.integrations.sizes import has_sinks, sizes

PLAIN = (  # kinds of layers whose keys are the tokens before the query: what a pattern takes the place of
    "full_attention", "attention", "sliding_attention", "chunked_attention", "hybrid", "hybrid_sliding",
)  # fmt: skip
CHANGES = {  # arguments of attention functions in transformers that would change the result
    "position_bias": "a bias on the scores",
    "indices": "keys chosen by the data",
    "block_indices": "blocks of keys chosen by the data",
    "sinks": "sinks that are keys",
    "read_index": "pages of continuous batching",
    "block_table": "pages of continuous batching",
    "head_mask": "a factor for each head",
    "layer_head_mask": "a factor for each head",
}


def check_layer(
    package: ModuleType, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, causal: bool | None = None
) -> tuple[int, int]:
    """The number of the layer, and the global number of the first query head in q; raises UsageError where the model's
    shapes are not the pattern's.

    q [batch, heads, queries, head_dim] and k are those of this rank: under tensor parallelism a part of the heads.
    `causal`: what the call says, where it does; else the module is asked.
    """
    pattern = package.PATTERN
    config = module.config
    config = getattr(config, "text_config", config)
    layer = getattr(module, "layer_idx", None)
    if layer is None:
        raise UsageError(
            f"{type(module).__name__} does not say its layer (layer_idx), so no layer's pattern fits it",
            "of a model of images and text give the pattern to the text alone: "
            "model.set_attn_implementation({'text_config': register(PATTERN)})",
        )
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
        raise UsageError(f"{type(config).__name__} has cross-attention; a pattern describes self-attention")
    layers = getattr(config, "num_hidden_layers", None)
    if layers is not None and layers != pattern["layers"]:
        where = place(package, "layers")
        raise UsageError(
            f"the model has {size_of('layers', layers)}, the pattern {pattern['name']} has {pattern['layers']}{where}"
        )
    if layer >= pattern["layers"]:
        where = place(package, "layers")
        raise UsageError(f"the model's layer {layer} is not among the pattern's {pattern['layers']}{where}")
    kinds = getattr(config, "layer_types", None) or ()
    if layer < len(kinds) and kinds[layer] not in PLAIN:
        raise UsageError(
            f"layer {layer} of the model is {kinds[layer]}: a pattern takes the place of full attention, windows and "
            "chunks, whose keys are the tokens before a query"
        )
    size = sizes(package, layer)
    rank, ranks = _rank(module)
    facts = [
        ("heads", q.shape[1] * ranks),
        ("kv_heads", k.shape[1] * ranks),
        ("head_dim", q.shape[-1]),
        ("v_head_dim", v.shape[-1]),
    ]
    for key, theirs in facts:
        if theirs == size[key]:
            continue
        if key == "heads" and getattr(config, "num_attention_heads", None) == size[key]:
            raise UsageError(
                "this rank has a part of the model's heads, and its weights do not say which",
                "tensor parallelism must keep q_proj as a DTensor, as tp_plan='auto' does",
            )
        same = all(sizes(package, other)[key] == size[key] for other in range(pattern["layers"]))
        where = place(package, key) if same else f" in layer {layer}"
        raise UsageError(f"the model has {size_of(key, theirs)}, the pattern {pattern['name']} has {size[key]}{where}")
    causal = getattr(module, "is_causal", None) if causal is None else causal
    if causal is not None and bool(causal) != pattern["causal"]:
        words = ("is causal, the pattern {} is not{}", "is not causal, the pattern {} is{}")[pattern["causal"]]
        raise UsageError(f"{type(module).__name__} {words.format(pattern['name'], place(package, 'causal'))}")
    return layer, rank * q.shape[1]


def _rank(module: nn.Module) -> tuple[int, int]:
    """Which part of the heads this rank has, and of how many, from the tensor-parallel weights; (0, 1) without any."""
    for name in ("q_proj", "qkv_proj", "query_key_value"):
        weight = getattr(getattr(module, name, None), "weight", None)
        mesh = getattr(weight, "device_mesh", None)
        if mesh is not None:
            mesh = mesh["tp"] if "tp" in (mesh.mesh_dim_names or ()) else mesh
            shards = any(placement.is_shard() for placement in getattr(weight, "placements", ()))
            return (mesh.get_local_rank(), mesh.size()) if shards else (0, 1)
    return 0, 1


def check_call(
    package: ModuleType, layer: int, module: nn.Module, dropout: float, scale: float, options: dict[str, Any]
) -> Tensor | None:
    """The learned sinks of the layer, if it has any; raises UsageError for what the pattern does not do."""
    if dropout and module.training:
        raise UsageError(
            f"attention_dropout is {dropout}: patterns have no dropout", "set config.attention_dropout = 0.0"
        )
    if options.get("output_attentions"):
        raise UsageError("output_attentions asks for weights, which are never made", "use attn_implementation='eager'")
    for name, words in CHANGES.items():
        if options.get(name) is not None:
            raise UsageError(f"{type(module).__name__} gives {name}, {words}: a pattern knows nothing of it")
    softcap, ours = options.get("softcap"), package.PATTERN.get("softcap")
    if (softcap or None) != (ours or None):
        raise UsageError(
            f"the model caps its scores at {softcap}, the pattern {package.PATTERN['name']} at {ours}"
            f"{place(package, 'softcap')}",
            f"write `softcap: {float(softcap)}`" if softcap else "remove `softcap` from the pattern",
        )
    check_scale(package, scale)
    sinks = options.get("s_aux")
    if (sinks is not None) != has_sinks(package, layer):
        have = (
            "has learned sinks, the pattern has none" if sinks is not None else "has no learned sinks, the pattern has"
        )
        raise UsageError(
            f"the model {have}{place(package, 'sinks')}", "write `sinks: learned` for such a model, and only for it"
        )
    return sinks
