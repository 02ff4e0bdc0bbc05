"""What transformers says of padding, offsets and caches, as five whole numbers a sequence.

Slots are the places of the model's key tensor before any cache dropped some: slot s holds token s - first of a sequence
whose padding ends before `first`. The mask function gives the numbers to every layer in place of a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

REPLACED = (  # functions of transformers.masking_utils
    "and_masks", "causal_mask_function", "bidirectional_mask_function", "sliding_window_overlay", "chunked_overlay",
    "_legacy_chunked_overlay", "sliding_window_bidirectional_overlay", "packed_sequence_mask_function",
    "remap_positions_for_packed_sequence",
)  # fmt: skip
GRAPH = (
    "patterncc cannot trace padding masks and static caches (fullgraph=True): leave attention_mask away where nothing "
    "is padded, or call generate(..., disable_compile=True)"
)
# first and end of the valid slots; the slots of the query and of the first key; how many keys there are
FIRST, STOP, QUERY, KEY, KEYS = range(5)
CHOSEN = (
    "indexed",
    "sparse",
    "compressed",
)  # in the name of a kind of layers: their keys are chosen, or made, by the data

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def untraced(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, which torch.compile calls without looking into it; in a whole graph it raises, with GRAPH."""
    disabled: Any = torch.compiler.disable(function, reason=GRAPH)
    return disabled


def bounds(
    batch_size: int,
    q_length: int | Tensor | None = None,
    kv_length: int | None = None,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: Tensor | None = None,
    cache_position: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    causal: bool = True,
    device: torch.device | str | None = None,
    config: Any = None,
    **_: Any,
) -> Tensor | None:
    """int64 [batch, 1, queries, 5] on the CPU: FIRST, STOP, QUERY, KEY, KEYS of each query; None where nothing is
    padded and queries and keys end together. Four dimensions, because transformers hands on a mask of four as it is,
    and a row a query, because models that compute some queries only (Gemma 4) take their rows.

    transformers 5 gives q_length and q_offset, 4.57 gives cache_position in their place. Raises ValueError for a mask
    with holes, for a model that adds pairs to the mask, and for one whose layers choose keys, which would read a mask.
    """
    if chosen := [kind for kind in getattr(config, "layer_types", None) or () if any(x in kind for x in CHOSEN)]:
        raise ValueError(
            f"the model has layers of {chosen[0]}, which choose their keys by the data, or make them: a pattern takes "
            "the place of full attention, windows and chunks"
        )
    if cache_position is None and isinstance(q_length, Tensor):  # 4.57 by position
        cache_position = q_length
    if cache_position is not None:
        q_length, q_offset, device = len(cache_position), cache_position[0], cache_position.device
    assert isinstance(q_length, int) and kv_length is not None
    if torch.compiler.is_compiling():
        if causal:
            _check_traced(mask_function, batch_size, kv_length, device)
        if cache_position is not None and (q_length == kv_length or allow_is_causal_skip):
            q_offset = kv_length - q_length  # 4.57 allows the skip for every cache but a static one
        known = attention_mask is None and not isinstance(q_offset, Tensor)
        if known and not kv_offset and q_offset + q_length == kv_length:
            return None
    else:
        _check_pairs(mask_function)
    return _measured(batch_size, q_length, kv_length, q_offset, kv_offset, attention_mask)


@untraced
def _measured(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor,
    kv_offset: int,
    attention_mask: Tensor | None,
) -> Tensor | None:
    """The bounds, by looking at the numbers of the mask and of the cache."""
    query = int(q_offset)
    end = query + q_length
    if attention_mask is None:
        first, stop = torch.zeros(batch_size, dtype=torch.int64), torch.full((batch_size,), end)
    else:
        first, stop = _valid(attention_mask.to("cpu", torch.bool), end)
    if kv_offset == 0 and kv_length == end and not first.any() and bool((stop == end).all()):
        return None
    ends = torch.stack([first, stop], 1)[:, None, None].expand(-1, 1, q_length, -1)
    slots = torch.stack(
        [torch.arange(query, end), torch.full((q_length,), kv_offset), torch.full((q_length,), kv_length)], 1
    )
    return torch.cat([ends, slots.expand(batch_size, 1, -1, -1)], 3)


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


def _check_pairs(mask_function: Callable[..., Any] | None) -> None:
    """Raise ValueError where a model's mask is more than causality, a window, chunks and packed sequences, such as the
    tokens of an image that see each other: the pattern takes the place of these, and of nothing else."""
    waiting: list[Any] = [] if mask_function is None else [mask_function]
    while waiting:
        function = waiting.pop()
        name = getattr(function, "__qualname__", type(function).__name__).split(".")[0]
        if name not in REPLACED:
            raise ValueError(
                f"the model changes its mask by {name}: patterncc attends the pattern's pairs and no others, so "
                "tokens of an image that see each other, for one, cannot be had"
            )
        held = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        waiting += [part for x in held for part in (x if isinstance(x, tuple) else (x,)) if callable(part)]


def _check_traced(mask_function: Callable[..., Any] | None, batch_size: int, kv_length: int, device: Any) -> None:
    """The same while torch.compile traces, when functions cannot be looked into: the program that runs stops with a
    RuntimeError where a causal model's mask lets a token see the next one."""
    if mask_function is None or kv_length < 2:
        return
    t = torch.arange(kv_length - 1, device=device)[None]
    rows = torch.arange(batch_size, device=device)[:, None]
    sees_next = mask_function(rows, 0, t, t + 1)
    stop_unless(~sees_next.any(), "the model's mask lets tokens see later ones; the pattern does not")


def stop_unless(holds: Tensor, words: str) -> None:
    """Nothing; a compiled program stops with a RuntimeError at this place of it where `holds` [] is false."""
    torch.ops.aten._assert_async.msg(holds, words)  # torch has no public name for it
