"""Attention over the template pattern: a window of two blocks, and of the rest every fourth."""

# ruff: noqa: E402 (modules of an earlier import go before any is imported)
import sys as _sys

for _module in [name for name in _sys.modules if name.startswith(f"{__name__}.")]:
    del _sys.modules[_module]  # of an earlier import, which keeps them under another name

from .api.imports import remember as _remember
from .api.merge import combine
from .api.ops import attention
from .api.ops_paged import attention_paged, decode
from .api.ops_varlen import attention_varlen
from .kvcache.cache import KVCache
from .parallel.exchange import attention_split, exchange_plan, sparse_all_gather
from .pattern import FACTS as PATTERN
from .rules.masks import dense_mask
from .rules.pages import dead_pages

_remember()
__all__ = [
    "PATTERN",
    "KVCache",
    "attention",
    "attention_paged",
    "attention_split",
    "attention_varlen",
    "combine",
    "dead_pages",
    "decode",
    "dense_mask",
    "exchange_plan",
    "sparse_all_gather",
]
