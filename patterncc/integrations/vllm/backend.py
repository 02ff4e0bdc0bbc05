"""The attention backend CUSTOM of vLLM: what it can do.

Each kind of layers has a backend of its own, a subclass that knows which layers it is for, because vLLM asks backends,
and not layers, for the spec of a KV cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import torch
from vllm.v1.attention.backend import AttentionBackend, AttentionType, MultipleOf
from vllm.v1.kv_cache_interface import FullAttentionSpec

from patterncc.errors import UsageError
from patterncc.integrations.vllm.metadata import PatternMetadataBuilder
from patterncc.integrations.vllm.registering import check_version
from patterncc.integrations.vllm.spec import spec_like

check_version()


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
        from patterncc.integrations.vllm.attending import PatternImpl  # after check_version, with vLLM's models

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
    def of_layer(cls, layer: Any, pattern: str, layers: tuple[int, ...], ahead: int) -> type[PatternBackend]:
        """The backend of layers whose pages die alike, for a layer that has this one so far; raises UsageError for a
        layer that made a backend of its own from this one."""
        if cls is not PatternBackend and cls.kind is None:
            raise UsageError(f"{type(layer).__name__} changes what its backend attends; a pattern says all of it")
        return backend_of(pattern, layers, ahead)

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
