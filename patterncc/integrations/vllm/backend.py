"""The attention backend CUSTOM of vLLM: what it can do, and the metadata of a batch.

Each kind of layers has a backend of its own, a subclass that knows which layers it is for, because vLLM asks backends,
and not layers, for the spec of a KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionCGSupport,
    AttentionMetadataBuilder,
    AttentionType,
    CommonAttentionMetadata,
    MultipleOf,
)
from vllm.v1.kv_cache_interface import FullAttentionSpec

from patterncc.errors import UsageError
from patterncc.integrations.vllm.registering import check_version
from patterncc.integrations.vllm.spec import spec_like

check_version()


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


class PatternBackend(AttentionBackend):
    """What vLLM asks of a backend. Where it would refuse a layer in few words, the layer's own check does, in more."""

    forward_includes_kv_cache_update = False
    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16, torch.float32]
    supported_kv_cache_dtypes: ClassVar[list[Any]] = []  # any: see fitting.check_layer
    kind: ClassVar[tuple[str, tuple[int, ...], int] | None] = None  # pattern, layers, tokens ahead: see PatternSpec

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> Any:
        from patterncc.integrations.vllm.attending import PatternImpl

        return PatternImpl

    @staticmethod
    def get_builder_cls() -> type[PatternMetadataBuilder]:
        return PatternMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: Any = None) -> list[int | MultipleOf]:
        return [MultipleOf(16)]

    @staticmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int, *_: Any, **__: Any
    ) -> tuple[int, ...]:
        """Asked for by vLLM before 0.33 alone."""
        return num_blocks, num_kv_heads, block_size, 2 * head_size

    @classmethod
    def customize_spec(cls, spec: Any) -> Any:
        """The spec of this kind of layers: vLLM's own numbers, and when pages die."""
        if cls.kind is None:
            return spec
        if type(spec) is not FullAttentionSpec:
            raise UsageError(
                f"a layer keeps its KV cache as {type(spec).__name__} describes it; patterns are for full attention"
            )
        return spec_like(spec, *cls.kind)

    @classmethod
    def supports_sink(cls) -> bool:
        return True

    @classmethod
    def supports_sliding_window(cls) -> bool:
        return True

    @classmethod
    def supports_kv_connector(cls) -> bool:
        return True

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return attn_type in set(AttentionType)


@lru_cache(maxsize=256)
def backend_of(pattern: str, layers: tuple[int, ...], ahead: int) -> type[PatternBackend]:
    """The backend of layers whose pages die alike."""
    name = f"PatternBackend_{'_'.join(map(str, layers))}"
    return type(name, (PatternBackend,), {"kind": (pattern, layers, ahead), "__module__": __name__})
