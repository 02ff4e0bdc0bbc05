"""The metadata of a batch: what vLLM tells the layers of the requests that they attend for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.v1.attention.backend import AttentionCGSupport, AttentionMetadataBuilder, CommonAttentionMetadata

from patterncc.errors import UsageError


@dataclass
class PatternMetadata:
    """A batch: vLLM's own tensors by reference, since CUDA graphs read them where they were captured."""

    tokens: int  # that are computed; further ones pad the batch
    most_queries: int  # of a request
    query_start_loc: Tensor  # int32 [requests + 1]
    seq_lens: Tensor  # int32 [requests], those of the queries counted too
    block_table: Tensor  # int32 [requests, most pages]


class PatternMetadataBuilder(AttentionMetadataBuilder[PatternMetadata]):
    """Decoding, one token a request, may be captured in CUDA graphs; other batches are launched kernel by kernel."""

    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> PatternMetadata:
        """What layers need of a batch; raises UsageError for one that is not causal."""
        common = common_attn_metadata
        if common.causal is not True:
            raise UsageError("the batch is not causal; a decoder's pattern is")
        return PatternMetadata(
            common.num_actual_tokens,
            common.max_query_len,
            common.query_start_loc,
            common.seq_lens,
            common.block_table_tensor,
        )
