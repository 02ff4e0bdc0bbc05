"""Attention over the template pattern: a window of two blocks, and of the rest every fourth."""

from .api.merge import combine
from .api.ops import attention
from .api.ops_packed import attention_paged, attention_varlen, decode
from .kvcache.cache import KVCache
from .parallel.exchange import attention_split, exchange_plan, sparse_all_gather
from .pattern import FACTS as PATTERN
from .rules.masks import dense_mask

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
