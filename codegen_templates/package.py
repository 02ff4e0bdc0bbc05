"""Attention over the template pattern: a window of two blocks, and of the rest every fourth."""

from .exchange import attention_split, exchange_plan, sparse_all_gather
from .kvcache import KVCache
from .layout import dense_mask
from .merge import combine
from .ops import attention
from .ops_packed import attention_paged, attention_varlen, decode
from .pattern import FACTS as PATTERN

__all__ = [
    "PATTERN",
    "KVCache",
    "attention",
    "attention_paged",
    "attention_split",
    "attention_varlen",
    "combine",
    "decode",
    "dense_mask",
    "exchange_plan",
    "sparse_all_gather",
]
