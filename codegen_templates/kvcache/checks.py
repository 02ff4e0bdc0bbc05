"""What callers of a KV cache may pass, and which patterns can have one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks.shapes import DTYPES, WIDTHS, check_layer
from ..checks.values import MOST_ENTRIES, check_device, check_dtype, counted, described, numbered, whole
from ..pattern import CAUSAL, FACTS, HEAD_DIM, HEADS, NAME


def check_made(
    batch: int, layer: int, max_length: int | None, head_offset: int, heads: int | None
) -> tuple[int, int, int | None, int, int]:
    """The arguments of a cache as checked whole numbers; without `heads`, all heads from the offset on."""
    layer, batch = check_layer(layer), whole("batch", batch)
    if not 0 <= batch <= MOST_ENTRIES:
        raise ValueError(f"batch is the number of sequences, {MOST_ENTRIES:,} at most; got {batch}")
    max_length = None if max_length is None else whole("max_length", max_length)
    if max_length is not None and max_length < 0:
        raise ValueError(f"max_length is a number of tokens, or None for no limit; got {max_length}")
    head_offset = whole("head_offset", head_offset)
    heads = HEADS - head_offset if heads is None else whole("heads", heads)
    if head_offset < 0 or heads < 1 or head_offset + heads > HEADS:
        raise ValueError(f"{NAME} has {numbered('head', HEADS)}, and not {heads} from head_offset={head_offset} on")
    return batch, layer, max_length, head_offset, heads


def check_kind(dtype: torch.dtype, device: torch.device | str | None) -> None:
    check_dtype(dtype, DTYPES)
    if device is not None:
        check_device(device)


def check_step(q: Tensor, k: Tensor, v: Tensor, batch: int, heads: int, kv_heads: int) -> None:
    for name, x, own in (("q", q, heads), ("k", k, kv_heads), ("v", v, kv_heads)):
        if x.dim() != 4 or x.shape[:2] != (batch, own) or q.dim() != 4 or x.shape[2] != q.shape[2]:
            width = WIDTHS.get(name, HEAD_DIM)
            raise ValueError(
                f"{name} must be [{batch}, {own}, n, {width}] as this cache was made, with one n for q, "
                f"k and v; got {list(x.shape)}"
            )


def check_lengths(lengths: Tensor | Sequence[int], batch: int, n: int) -> list[int]:
    """How many of n tokens each entry has."""
    counts = _whole(lengths, f"lengths must be whole numbers [{batch}], how many of the {n} tokens each entry has")
    if len(counts) != batch:
        raise ValueError(f"lengths must be [{batch}], one for each entry of the batch; got [{len(counts)}]")
    for entry, count in enumerate(counts):
        if not 0 <= count <= n:
            raise ValueError(
                f"lengths[{entry}] is {count}, and {counted(n, 'token')} come{'s' * (n == 1)}: it says how many of "
                f"them are entry {entry}'s, not how many it has had"
            )
    return counts


def check_entries(index: Tensor | Sequence[int], batch: int) -> list[int]:
    """Entries of a batch; -1 stands for a new one."""
    entries = _whole(index, "index must be whole numbers [entries of the new cache]")
    if len(entries) > MOST_ENTRIES:
        raise ValueError(f"index has {len(entries)} entries; a cache has {MOST_ENTRIES:,} at most")
    for n, entry in enumerate(entries):
        if not -1 <= entry < batch:
            known = counted(batch, "entry", "entries")
            raise ValueError(f"index[{n}] is {entry}; the cache has {known}, from 0 on, and -1 is a new one")
    return entries


def _whole(x: Tensor | Sequence[int], wanted: str) -> list[int]:
    """On the host: a GPU's tensor is waited for."""
    try:
        x = torch.as_tensor(x, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{wanted}; got {described(x)}") from error
    x = x if x.numel() else x.long()
    if x.dim() != 1 or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"{wanted}; got {described(x)}")
    return [int(n) for n in x.tolist()]


def check_monotone(layer: int) -> None:
    """A cache may drop a key only if no later row takes it up again."""
    if not CAUSAL:
        raise ValueError(f"{NAME} is not causal: a query may attend keys that come after it, so it cannot be decoded")
    if witness := FACTS.get("kv", {}) and FACTS["kv"][layer]:
        if witness["query_token"] is None:
            raise ValueError(f"{NAME}, layer {layer}: not proved that dropped keys stay dropped ({witness['note']})")
        raise ValueError(
            f"{NAME}, layer {layer}, head {witness['head']}: row {witness['row']} reads column {witness['column']} "
            f"(query token {witness['query_token']}, key token {witness['key_token']}), which a row before it had "
            "dropped; a cache that drops keys cannot serve that: use a paged one. `patterncc verify kv` says more"
        )
