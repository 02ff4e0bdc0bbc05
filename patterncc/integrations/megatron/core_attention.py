"""The core attention of a Megatron layer, by a compiled package."""

from __future__ import annotations

import os
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from patterncc.errors import UsageError, counted
from patterncc.integrations.megatron.chunks import positions, to_runs, to_zigzag
from patterncc.integrations.megatron.fitting import check_model
from patterncc.integrations.megatron.masking import check_kind, check_mask, longest
from patterncc.pipeline import load


@lru_cache(maxsize=64)
def _plan(package: ModuleType, length: int, ranks: int, layer: int, heads: int, head_offset: int) -> Any:
    """Which keys the ranks of a context need of each other: made once for a length."""
    return package.exchange_plan(length, ranks, layer=layer, heads=heads, head_offset=head_offset)


class CoreAttention(MegatronModule):
    """Megatron's core_attention: `params={"pattern": PATTERN}`, a path, a shipped pattern's name or a loaded package.

    Raises UsageError where the model's heads, KV heads, head dimension or layers are not the pattern's, for what a
    pattern does not do, such as dropout, biases and windows of Megatron's own, and for masks that are not causality.
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
        self.scale, self.mask_type = softmax_scale, attn_mask_type
        groups = pg_collection
        if groups is None and max(config.tensor_model_parallel_size, config.context_parallel_size) > 1:
            groups = ProcessGroupCollection.use_mpu_process_groups(required_pgs=["tp", "cp"])
        tensor = getattr(groups, "tp", None)
        ranks, rank = (tensor.size(), tensor.rank()) if tensor is not None else (1, 0)
        check_model(
            self.package,
            self.layer,
            config,
            kind=attention_type,
            dropout=attention_dropout,
            scale=softmax_scale,
            k_channels=k_channels,
            v_channels=v_channels,
            ranks=ranks,
        )
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
        [tokens, heads, head_dim] where packed_seq_params come along. A mask other than Megatron's causal one raises
        UsageError."""
        if attention_bias is not None:
            raise UsageError("attention_bias is given: a pattern adds nothing to scores")
        kind = attn_mask_type or self.mask_type
        check_kind(self.package, kind, is_later=len(query) < len(key), is_packed=packed_seq_params is not None)
        if packed_seq_params is None and attention_mask is not None and (kind is None or kind.name != "no_mask"):
            keys = len(key) * (1 if self.context is None else self.context.size())
            rows = torch.arange(keys - len(query), keys) if self.context is None else positions(keys, self.context)
            check_mask(self.package, attention_mask, rows, keys)
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
        starts, most = [], []
        for side in ("q", "kv"):
            own, padded = getattr(packed, f"cu_seqlens_{side}"), getattr(packed, f"cu_seqlens_{side}_padded")
            if padded is not None and not self.package.PATTERN["causal"]:
                raise UsageError("packed sequences have padding behind them: a pattern that is not causal attends it")
            starts.append(own if padded is None else padded)  # padding is behind what it belongs to: nothing reads it
            said = getattr(packed, f"max_seqlen_{side}") if padded is None else None  # of which it may be without
            most.append(longest(starts[-1]) if said is None else int(said))
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
