"""One attention layer of a transformers model, computed by a compiled package."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from patterncc.errors import UsageError, counted
from patterncc.integrations.transformers.bounds import FIRST, KEY, KEYS, QUERY, STOP, stop_unless, untraced
from patterncc.integrations.transformers.fitting import check_call, check_layer
from patterncc.runtime.parts import part_of

_STARTS: WeakIdKeyDictionary = WeakIdKeyDictionary()  # position_ids → where its sequences start: once for all layers
_BEGIN: WeakIdKeyDictionary = WeakIdKeyDictionary()  # position_ids → whether all rows begin at 0
_JUMPS: WeakIdKeyDictionary = WeakIdKeyDictionary()  # position_ids → where it does not count up by one, or None


def attention(
    package: ModuleType,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Output [batch, queries, heads, v_head_dim] of query [batch, heads, queries, head_dim] over key and value.

    `attention_mask` is what `bounds` made, or None. Packed sequences are told by cu_seq_lens_q or by position_ids that
    begin anew. Raises UsageError where the model and the pattern do not fit.
    """
    layer, head_offset = check_layer(package, module, query, key, value, options.get("is_causal"))
    scale: float = query.shape[-1] ** -0.5 if scaling is None else scaling  # None: as the library's own functions do
    call: dict[str, Any] = {"layer": layer, "scale": scale, "head_offset": head_offset}
    sinks = check_call(package, layer, module, dropout, scale, options)
    if sinks is not None:
        call["sinks"] = sinks
    held = getattr(key, "patterncc_layer", None)  # put there by PatternCache
    if held is not None:
        if held.package is not package:
            raise UsageError("the PatternCache was made for another pattern", "make a new one: PatternCache(model)")
        if held.layer != layer:
            raise UsageError(
                f"layer {layer} of the model reads the keys of layer {held.layer}: a PatternCache keeps "
                "those that the other layer's pattern needs",
                "a model whose layers share keys takes a DynamicCache",
            )
        if attention_mask is not None:
            _check_unpacked(options.get("position_ids"), attention_mask[:, 0, 0].tolist(), query.shape[2])
        out = held.attend(query, key, value, attention_mask, **call)
    elif attention_mask is not None:
        if attention_mask.shape[1:] != (1, query.shape[2], KEYS + 1) or attention_mask.dtype != torch.int64:
            raise UsageError(
                f"patterncc got a mask of shape {list(attention_mask.shape)}: the pattern itself says what is attended",
                "give a padding mask [batch, tokens], or none",
            )
        out = _bounded(package, query, key, value, attention_mask, options.get("position_ids"), call)
    elif (starts := _starts(query, key, options)) is not None:
        longest = options.get("max_length_q") if options.get("cu_seq_lens_q") is not None else None
        out = _packed(package, query, key, value, starts, longest, call)
    else:
        out = package.attention(query, key, value, **call)
    return out.transpose(1, 2).contiguous(), None


@untraced
def _bounded(
    package: ModuleType, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, positions: Tensor | None, call: dict[str, Any]
) -> Tensor:
    """Attention of padded sequences: those with equal bounds together. The outputs of padding are 0."""
    rows = bounds[:, 0, 0].tolist()
    _check_unpacked(positions, rows, q.shape[2])
    if rows and k.shape[2] not in (rows[0][KEYS], rows[0][QUERY] + q.shape[2] - rows[0][KEY]):
        raise UsageError(
            f"layer {call['layer']} has {counted(k.shape[2], 'key')} where the model's mask is for {rows[0][KEYS]}",
            "of a model whose cache does not tell its length give unpadded batches, or use_cache=False",
        )
    groups: dict[tuple[int, ...], list[int]] = {}
    for n, row in enumerate(rows):
        groups.setdefault(tuple(row), []).append(n)
    pieces = []
    for row, members in groups.items():
        first, stop, query, key = (row[column] for column in (FIRST, STOP, QUERY, KEY))
        top, bottom = max(first - query, 0), min(max(stop - query, 0), q.shape[2])  # queries that are no padding
        low, high = max(first - key, 0), min(stop - key, k.shape[2])  # keys that are none
        if bottom <= top or high <= low:
            continue
        chosen = slice(None) if len(groups) == 1 else torch.tensor(members, device=q.device)
        queries = q[chosen][:, :, top:bottom]
        keys, values = (x[chosen][:, :, low:high] for x in (k, v))
        part = _placed(package, queries, keys, values, query + top - first, key + low - first, call)
        pieces.append((chosen, top, bottom, part))
    own = pieces[0][3] if pieces else q  # under autocast the pieces have its dtype, whatever q has
    out = own.new_zeros(*q.shape[:3], v.shape[3])
    for chosen, top, bottom, part in pieces:
        out[chosen, :, top:bottom] = part
    return out


def _placed(
    package: ModuleType, q: Tensor, k: Tensor, v: Tensor, q_start: int, kv_start: int, call: dict[str, Any]
) -> Tensor:
    """Attention of queries from position q_start on over keys from kv_start on; a cache has dropped earlier ones."""
    if kv_start:
        _check_dropped(package, call["layer"], kv_start, q_start)
        gap = kv_start % package.PATTERN["block"]
        if gap:  # a package's keys start with a block; what is put before them is kept by no query
            k, v = (torch.cat([x.new_zeros(*x.shape[:2], gap, x.shape[3]), x], 2) for x in (k, v))
            kv_start -= gap
    return package.attention(q, k, v, q_start=q_start, kv_start=kv_start, **call)


def _check_dropped(package: ModuleType, layer: int, kv_start: int, q_start: int) -> None:
    """Raise UsageError where a query from q_start on keeps a key before kv_start, which a sliding cache has dropped."""
    dropped = range(0, kv_start, STRETCH)
    if package.PATTERN["causal"] and all(
        last_reader(package, layer, start, min(start + STRETCH, kv_start)) < q_start for start in dropped
    ):
        return
    raise UsageError(
        f"the model's sliding cache has dropped keys before token {kv_start}, which layer {layer} of the pattern "
        f"{package.PATTERN['name']} still keeps at token {q_start} or later",
        "pass past_key_values=PatternCache(model), or a DynamicCache() made without the model's config",
    )


STRETCH = 1024  # tokens that are looked at together: a step of decoding asks anew for the last of them only


@lru_cache(maxsize=65536)
def last_reader(package: ModuleType, layer: int, start: int, stop: int) -> int:
    """The last query of any head that keeps one of the keys start … stop - 1."""
    keys = torch.arange(start, stop)
    own = part_of(package, layer)
    classes = sorted(set(own.pattern.CLASS_OF[layer]))
    return int(torch.stack([own.rules.lifetime.last_query(klass, keys) for klass in classes]).max())


def _check_unpacked(positions: Tensor | None, rows: list[list[int]], q_length: int) -> None:
    """Raise UsageError for position_ids that begin anew within what the padding mask leaves of a row."""
    if positions is None or positions.dim() != 2 or positions.shape[1] != q_length:
        return
    jumps = _JUMPS.get(positions, False)
    if jumps is False:
        jumps = (positions[:, 1:] != positions[:, :-1] + 1).cpu()
        jumps = _JUMPS[positions] = jumps if bool(jumps.any()) else None
    if jumps is None:
        return
    for n, row in enumerate(rows):
        top, bottom = max(row[FIRST] - row[QUERY], 0), row[STOP] - row[QUERY]
        if bottom - top > 1 and bool(jumps[n % len(jumps), top : bottom - 1].any()):
            raise UsageError(
                "position_ids begin anew within a row that has a padding mask, or that a cache serves",
                "packed sequences come without attention_mask and without a cache",
            )


def _starts(q: Tensor, k: Tensor, options: dict[str, Any]) -> Tensor | None:
    """Where the packed sequences of each row start, int32 [sequences + 1] over all rows; None where none are packed."""
    starts = options.get("cu_seq_lens_q")
    if starts is not None:
        if q.shape[0] != 1 or q.shape[2] != k.shape[2]:
            raise UsageError("cu_seq_lens_q comes with several rows, or a cache: packed sequences lie in one row")
        return starts.to(torch.int32)
    positions = options.get("position_ids")
    if positions is None or positions.dim() != 2:
        return None
    if k.shape[2] not in (q.shape[2], positions.shape[-1]):
        _check_keys(q, k, positions)
        return None
    if torch.compiler.is_compiling():
        counted = positions[:, 1:] == positions[:, :-1] + 1
        stop_unless(counted.all(), "under torch.compile patterncc takes packed sequences by cu_seq_lens_q only")
        return None
    known = _STARTS.get(positions, False)
    if known is False:
        known = _STARTS[positions] = _anew(positions)
    if known is None or len(known) == 0:
        return None
    if q.shape[2] != k.shape[2]:
        raise UsageError(
            "position_ids begin anew, and the model computes some of its queries only",
            "give packed sequences without logits_to_keep",
        )
    if positions.shape[0] == 1 and q.shape[0] > 1:  # one row of positions for all rows of the batch
        length = q.shape[2]
        known = torch.cat(
            [known[:-1] + row * length for row in range(q.shape[0])] + [known[-1:] + (q.shape[0] - 1) * length]
        )
    return known.to(q.device)


def _check_keys(q: Tensor, k: Tensor, positions: Tensor) -> None:
    """Raise UsageError for more keys than queries where the queries are the first tokens: no cache had them."""
    if torch.compiler.is_compiling() or not 1 < q.shape[2] == positions.shape[-1] < k.shape[2]:
        return
    begin = _BEGIN.get(positions)
    if begin is None:
        begin = _BEGIN[positions] = not bool(positions[:, 0].any())
    if begin:
        raise UsageError(
            f"the tokens begin at position 0, and there are {counted(k.shape[2], 'key')} for "
            f"{counted(q.shape[2], 'query', 'queries')}: the model adds keys of its own, which no pattern describes"
        )


def _anew(positions: Tensor) -> Tensor | None:
    """Starts of the sequences in position_ids [rows, tokens], over all rows, and their end; None where all rows are one
    sequence each."""
    if positions.shape[1] < 2 or not bool((positions[:, 1:] != positions[:, :-1] + 1).any()):
        return None
    begins = torch.ones_like(positions, dtype=torch.bool)
    begins[:, 1:] = positions[:, 1:] != positions[:, :-1] + 1
    if bool((positions[begins] != 0).any()):
        raise UsageError(
            "position_ids jump without beginning at 0: patterncc takes positions that count up, and packed sequences "
            "that each begin at 0"
        )
    starts = begins.flatten().nonzero().flatten()
    return torch.cat([starts, starts.new_tensor([positions.numel()])]).to(torch.int32)


def _packed(
    package: ModuleType, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int | None, call: dict[str, Any]
) -> Tensor:
    """Attention within each packed sequence; rows of the batch are laid end to end."""
    batch, _, length, _ = q.shape
    flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]
    if longest is None:
        longest = int((starts[1:] - starts[:-1]).max())
    out = package.attention_varlen(*flat, starts, starts, longest, longest, **call)
    return out.unflatten(0, (batch, length)).transpose(1, 2)
