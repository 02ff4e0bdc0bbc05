"""Attention over the template pattern, by layer."""

# ruff: noqa: E402 (modules of an earlier import go before any is imported)
import sys as _sys

for _module in [name for name in _sys.modules if name.startswith(f"{__name__}.")]:
    del _sys.modules[_module]  # of an earlier import, which keeps them under another name

from .api.imports import remember as _remember
from .api.layers import (
    KVCache,
    attention,
    attention_paged,
    attention_split,
    attention_varlen,
    combine,
    dead_pages,
    decode,
    dense_mask,
    exchange_plan,
    part,
    sparse_all_gather,
)
from .pattern import FACTS as PATTERN

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
    "part",
    "sparse_all_gather",
]
