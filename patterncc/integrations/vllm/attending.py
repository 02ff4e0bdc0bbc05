"""One attention layer of a model in vLLM, computed by a compiled package on vLLM's own pages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.config import get_current_vllm_config
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.model_executor.models.utils import extract_layer_index
from vllm.v1.attention.backend import AttentionBackend, AttentionImpl, AttentionType

from patterncc.errors import UsageError, counted
from patterncc.integrations.vllm.fitting import check_engine, check_layer, check_model, check_sinks, source_of
from patterncc.integrations.vllm.metadata import PatternMetadata
from patterncc.integrations.vllm.pages import kinds_of_layers, package_of


class PatternImpl(AttentionImpl[PatternMetadata]):
    """vLLM makes one for each attention layer. Raises UsageError where model, engine and pattern do not fit."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: Tensor | None = None,
        **others: Any,
    ) -> None:
        self.num_heads, self.head_size, self.scale = num_heads, head_size, float(scale)
        self.num_kv_heads = num_kv_heads or num_heads
        self.kv_cache_dtype, self.sinks = kv_cache_dtype, sinks
        self.config = config = get_current_vllm_config()
        self.source = source_of(config.additional_config, config.model_config.hf_config)
        self.package = package_of(self.source)
        check_layer(
            self.package,
            scale=self.scale,
            softcap=logits_soft_cap,
            alibi=alibi_slopes is not None,
            sliding_window=sliding_window,
            kv_cache_dtype=kv_cache_dtype,
            dtype=str(torch.get_default_dtype()).removeprefix("torch."),
            attn_type=AttentionType(attn_type).value,
            shares_kv_with=kv_sharing_target_layer_name,
            others=others,
        )
        parallel, model = config.parallel_config, config.model_config
        self.ranks = get_tensor_model_parallel_world_size()
        check_engine(
            speculative=config.speculative_config is not None,
            transfers_kv=config.kv_transfer_config is not None,
            decode_context=parallel.decode_context_parallel_size,
            prefill_context=getattr(parallel, "prefill_context_parallel_size", 1),
            is_hybrid=model.is_hybrid,
        )
        check_model(
            self.package,
            {
                "heads": num_heads * self.ranks,
                "kv_heads": model.get_total_num_kv_heads(),
                "head_dim": head_size,
                "layers": model.hf_text_config.num_hidden_layers,
            },
        )
        self.head_offset = get_tensor_model_parallel_rank() * num_heads
        self.layer: int | None = None

    def process_weights_after_loading(self, act_dtype: Any) -> None:
        """Give this layer, now that vLLM has made it, the backend of its kind: it is asked for the KV cache's spec."""
        for layer in self.config.compilation_config.static_forward_context.values():
            if getattr(layer, "impl", None) is self:
                kinds = kinds_of_layers(self.package)
                own = (kinds[self.layer_of(layer)],)
                if self.config.scheduler_config.disable_hybrid_kv_cache_manager:
                    own = tuple(sorted(set(kinds)))  # all layers share block tables
                ahead = self.config.max_in_flight_tokens
                layer.attn_backend = layer.attn_backend.of_layer(layer, self.source, own, ahead)

    def layer_of(self, layer: Any) -> int:
        """The number of the layer in the model; its checks are made the first time."""
        number = self.layer
        if number is None:
            number, layers = extract_layer_index(layer.layer_name), self.package.PATTERN["layers"]
            if not 0 <= number < layers:
                raise UsageError(
                    f"the model's layer {layer.layer_name} is not among the {counted(layers, 'layer')} of the pattern "
                    f"{self.package.PATTERN['name']}"
                )
            values = getattr(layer, "head_size_v", self.head_size)
            if values != self.head_size and hasattr(AttentionBackend, "get_kv_cache_shape"):
                raise UsageError(
                    f"values of {values} numbers and keys of {self.head_size}: this vLLM asks for the shape of a "
                    "KV cache without saying how wide values are",
                    "pip install 'vllm>=0.33'",
                )
            sizes = {"heads": self.num_heads * self.ranks, "head_dim": self.head_size, "v_head_dim": values}
            check_model(self.package, sizes, number)
            check_sinks(self.package, number, self.sinks is not None)
            self.layer = number
        return number

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Write keys and values [tokens, kv_heads, dim] into their slots of kv_cache [pages, kv_heads, page_size, K and
        V]. Slots below 0 are of padding, and go where nothing reads: into the null page, which is page 0."""
        tokens, page_size = slot_mapping.shape[0], kv_cache.shape[2]
        slots = slot_mapping.clamp(min=0).long()
        page, place = slots // page_size, slots % page_size
        keys, values = self.split(kv_cache)
        keys[page, place] = key[:tokens].to(kv_cache.dtype)
        values[page, place] = value[:tokens].to(kv_cache.dtype)

    def split(self, kv_cache: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values as the package reads them, [pages, page_size, kv_heads, dim]: views of vLLM's pages."""
        by_token = kv_cache.transpose(1, 2)
        return by_token[..., : self.head_size], by_token[..., self.head_size :]

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: PatternMetadata | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Attention of query [tokens, heads, head_dim] over the pages of each request, written into output."""
        if output_scale is not None or output_block_scale is not None:
            raise NotImplementedError("patterncc: outputs are not quantised")
        if attn_metadata is None:  # vLLM measures memory
            return output.fill_(0)
        batch = attn_metadata
        call = {"layer": self.layer_of(layer), "scale": self.scale, "head_offset": self.head_offset}
        if self.sinks is not None:
            call["sinks"] = self.sinks
        paged = *self.split(kv_cache), batch.block_table, batch.seq_lens
        tokens = query[: batch.tokens]
        if batch.most_queries == 1 and len(batch.seq_lens) == batch.tokens:  # each request decodes one token
            out = self.package.decode(tokens[:, None], *paged, **call)[:, 0]
        else:
            out = self.package.attention_paged(
                tokens, *paged, batch.query_start_loc, max_q_len=batch.most_queries, **call
            )
        output[: batch.tokens].copy_(out)
        return output
