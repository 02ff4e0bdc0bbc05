"""What transformers says of padding, offsets and caches, as four whole numbers a sequence.

Slots are the places of the model's key tensor before any cache dropped some: slot s holds token s - first of a sequence
whose padding ends before `first`. The mask function gives the numbers to every layer in place of a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FIRST, STOP, QUERY, KEY = range(4)  # first and end of the valid slots; the slots of the first query and the first key


def bounds(
    batch_size: int,
    q_length: int | Tensor | None = None,
    kv_length: int | None = None,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: Tensor | None = None,
    cache_position: Tensor | None = None,
    **_: Any,
) -> Tensor | None:
    """int64 [batch, 1, 1, 4] on the CPU: FIRST, STOP, QUERY, KEY of each sequence; None where nothing is padded and
    queries and keys end together. Four dimensions, because transformers hands on a mask of four as it is.

    transformers 5 gives q_length and q_offset, 4.57 gives cache_position in their place. Raises ValueError for a mask
    with holes.
    """
    if cache_position is None and isinstance(q_length, Tensor):  # 4.57 by position
        cache_position = q_length
    if cache_position is not None:
        q_length, q_offset = len(cache_position), cache_position[0]
    assert isinstance(q_length, int) and kv_length is not None
    if torch.compiler.is_compiling():
        return _compiled(attention_mask, q_length, kv_length, q_offset, kv_offset)
    query = int(q_offset)
    end = query + q_length
    if attention_mask is None:
        first, stop = torch.zeros(batch_size, dtype=torch.int64), torch.full((batch_size,), end)
    else:
        first, stop = _valid(attention_mask.to("cpu", torch.bool), end)
    if kv_offset == 0 and kv_length == end and not first.any() and bool((stop == end).all()):
        return None
    return torch.stack([first, stop, torch.full_like(first, query), torch.full_like(first, kv_offset)], 1)[
        :, None, None
    ]


def _valid(mask: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """First and end of the ones in each row of a padding mask [batch, slots]; slots behind the mask are valid."""
    if mask.dim() != 2:
        raise ValueError(
            f"patterncc takes a padding mask [batch, tokens]; this one has shape {list(mask.shape)}: the pattern says "
            "what a token attends"
        )
    if mask.shape[1] < end:
        mask = torch.nn.functional.pad(mask, (0, end - mask.shape[1]), value=True)
    mask = mask[:, :end]
    count, first = mask.sum(1), mask.int().argmax(1)
    stop = torch.where(count > 0, first + count, first)
    slots = torch.arange(end)
    if not torch.equal(mask, (slots >= first[:, None]) & (slots < stop[:, None])):
        raise ValueError(
            "the attention mask has holes: patterncc takes padding on the left, on the right or on both sides of a "
            "sequence; pack sequences with position_ids or cu_seq_lens instead"
        )
    return first, stop


def _compiled(
    attention_mask: Tensor | None, q_length: int, kv_length: int, q_offset: int | Tensor, kv_offset: int
) -> None:
    """While torch.compile traces nothing can be asked of a tensor: only what needs no bounds is taken."""
    if attention_mask is not None or isinstance(q_offset, Tensor) or kv_offset or q_offset + q_length != kv_length:
        raise ValueError(
            "under torch.compile(fullgraph=True) patterncc takes calls without attention_mask and with a dynamic cache "
            "or none: padding and static caches need lengths that only a running program knows"
        )
