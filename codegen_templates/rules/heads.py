"""Which KV head a query head reads."""

from __future__ import annotations

from ..pattern import HEADS, KV_HEADS

SHARE = HEADS // KV_HEADS  # query heads that read one KV head


def kv_head(head: int, head_offset: int) -> int:
    """The KV head of a query head, both counted among those present, the first of which is the pattern's query head
    `head_offset`."""
    return (head_offset + head) // SHARE - head_offset // SHARE
