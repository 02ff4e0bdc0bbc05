"""The core attention of a Megatron layer, by a compiled package."""

from __future__ import annotations

import os
from functools import lru_cache
from types import ModuleType
from typing import Any

from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from patterncc.errors import UsageError, counted, size_of
from patterncc.integrations.megatron.chunks import to_runs, to_zigzag
from patterncc.integrations.place import place
from patterncc.integrations.scale import check_scale
from patterncc.integrations.sizes import sizes
from patterncc.pipeline import load


@lru_cache(maxsize=64)
def _plan(package: ModuleType, length: int, ranks: int, layer: int, heads: int, head_offset: int) -> Any:
    """Which keys the ranks of a context need of each other: made once for a length."""
    return package.exchange_plan(length, ranks, layer=layer, heads=heads, head_offset=head_offset)


class CoreAttention(MegatronModule):
    """Megatron's core_attention: `params={"pattern": PATTERN}`, a path, a shipped pattern's name or a loaded package.

    Raises UsageError where the model's heads, KV heads, head dimension or layers are not the pattern's, and for
    dropout and attention biases.
    """

    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
        k_channels: int | None = None,
        v_channels: int | None = None,
        *,
        pattern: str | os.PathLike[str] | ModuleType,
    ) -> None:
        super().__init__(config=config)
        self.package = pattern if isinstance(pattern, ModuleType) else load(pattern)
        self.layer = layer_number - 1  # Megatron counts from 1, over all pipeline stages
        self.scale = softmax_scale
        self._check(config, attention_type, attention_dropout, k_channels, v_channels)
        groups = pg_collection
        tensor = getattr(groups, "tp", None)
        ranks, rank = (tensor.size(), tensor.rank()) if tensor is not None else (1, 0)
        self.heads = config.num_attention_heads // ranks
        self.head_offset = rank * self.heads
        self.context = getattr(groups, "cp", None) if config.context_parallel_size > 1 else None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        /,
        *,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> Tensor:
        """Output [tokens, batch, heads * head_dim] of query [tokens, batch, heads, head_dim]; packed [tokens, …] of
        [tokens, heads, head_dim] where packed_seq_params come along. The mask, Megatron's causal one, is not read."""
        if attention_bias is not None:
            raise UsageError("attention_bias is given: a pattern adds nothing to scores")
        call = {"layer": self.layer, "scale": self.scale, "head_offset": self.head_offset}
        if packed_seq_params is not None:
            return self._packed(query, key, value, packed_seq_params, call)
        if self.context is not None:
            return self._split(query, key, value)
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        return self.package.attention(q, k, v, **call).permute(2, 0, 1, 3).flatten(2)

    def _packed(self, q: Tensor, k: Tensor, v: Tensor, packed: Any, call: dict[str, Any]) -> Tensor:
        """Sequences laid end to end, attention within each."""
        if self.context is not None:
            raise UsageError("packed sequences over context-parallel ranks are not supported", "use one of the two")
        if packed.qkv_format != "thd":
            raise UsageError(f"packed sequences come as {packed.qkv_format!r}; patterncc takes thd")
        starts = packed.cu_seqlens_q, packed.cu_seqlens_kv
        most = [int(x) for x in (packed.max_seqlen_q, packed.max_seqlen_kv)]
        out = self.package.attention_varlen(q, k, v, *starts, *most, **call)
        return out.flatten(1)

    def _split(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """A context over ranks in Megatron's zig-zag chunks: only keys that some row keeps travel."""
        group = self.context
        assert group is not None
        length, block = len(query) * group.size(), self.package.PATTERN["block"]
        if len(query) % block:
            raise UsageError(
                f"each of {group.size()} context-parallel ranks has {counted(len(query), 'token')}, no whole "
                f"blocks of {block}",
                f"make the sequence length a multiple of {group.size() * block}",
            )
        plan = _plan(self.package, length, group.size(), self.layer, self.heads, self.head_offset)
        q, k, v = (to_runs(x.contiguous(), group).permute(1, 2, 0, 3) for x in (query, key, value))
        out = self.package.attention_split(q, k, v, plan, scale=self.scale, group=group)
        return to_zigzag(out.permute(2, 0, 1, 3).contiguous(), group).flatten(2)

    def _check(
        self, config: Any, kind: str, dropout: float | None, k_channels: int | None, v_channels: int | None
    ) -> None:
        """Raise UsageError for a model that is not the pattern's, or asks for what a pattern does not do."""
        pattern = self.package.PATTERN
        if "shapes" in pattern:
            raise UsageError(
                f"the layers of the pattern {pattern['name']} differ in heads or widths; Megatron's layers have one "
                "configuration, so one shape for all"
            )
        facts = [("layers", config.num_layers, pattern["layers"])]
        if self.layer < pattern["layers"]:
            size = sizes(self.package, self.layer)
            facts += [
                ("heads", config.num_attention_heads, size["heads"]),
                ("kv_heads", config.num_query_groups or config.num_attention_heads, size["kv_heads"]),
                ("head_dim", k_channels or config.kv_channels, size["head_dim"]),
                ("v_head_dim", v_channels or config.kv_channels, size["v_head_dim"]),
            ]
        for key, theirs, ours in facts:
            if theirs != ours:
                raise UsageError(
                    f"the model has {size_of(key, theirs)}, the pattern {pattern['name']} has {ours}"
                    f"{place(self.package, key)}"
                )
        if kind not in ("self", None):
            raise UsageError(f"the layer is {kind} attention; a pattern describes self attention")
        if config.attention_dropout if dropout is None else dropout:
            raise UsageError("attention_dropout is set: patterns have none", "set attention_dropout=0.0")
        if self.scale is not None:  # else the pattern's, or head_dim ** -0.5
            check_scale(self.package, self.scale)
        for key, words in (("softcap", "soft-capped scores"), ("sinks", "learned sinks")):
            if pattern.get(key) is not None:
                raise UsageError(f"the pattern has {words}, which Megatron's layers do not pass on")
