"""Launches for the newest token of each sequence in a cache: it is put into a bank, and attends what the bank holds."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from ..kernels.cache import (
    attn_cache_put,
    attn_cache_read,
)
from ..pattern import HEADS, KV_HEADS, V_HEAD_DIM
from . import binaries, configs
from .kept import Launch
from .outputs import WIDEST
from .requests import LOG2_E, arch, precision, processors

SHARE = HEADS // KV_HEADS
binaries.use(
    attn_cache_put,
    attn_cache_read,
)


class Held(Protocol):
    """A bank of `kvcache/bank.py`."""

    rows: tuple[int, ...]
    index: Tensor
    memory: tuple[Tensor, Tensor]
    until: Tensor
    odd: Tensor
    used: int
    counts: Tensor | None  # zeros for the programs of a row to count in


@cache
def takes(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether these kernels compute such a cache: not on AMD's GPUs, where no program merges what others have, nor
    bfloat16 in Triton's interpreter, which multiplies it wrongly."""
    kinds = (torch.float32, torch.float16, torch.bfloat16)[: 3 if device.type == "cuda" else 2]
    return dtype in kinds and configs.merges(arch(device), 1)


def put(
    bank: Held,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    longer: Tensor,
    news: Tensor,
    tables: tuple[Tensor, Tensor | None, Tensor | None],
) -> None:
    """Put the newest token of every entry, k and v [batch, kv_heads, 1, their width], into the bank's rows, and write
    the entries' new lengths. news [batch]: 0 for an entry without one. tables: what says a token's last query."""
    held_k, held_v = bank.memory
    table, windows, sinks = tables
    _, classes, places = bank.until.shape
    launch = _putting(k.device, k.dtype, windows is None, sinks is None, 1 << (classes - 1).bit_length())
    tensors = k, v, held_k, held_v, bank.until, bank.odd, bank.index, lengths, longer, news, table, windows, sinks
    numbers = k.shape[1], classes, bank.used, places - 1, table.shape[-1], *k.stride()[:2], *v.stride()[:2]
    launch(attn_cache_put, (len(bank.rows), 1, 1), tensors, numbers)


def attend(
    bank: Held,
    q: Tensor,
    out: Tensor,
    lengths: Tensor,
    news: Tensor,
    sinks: Tensor | None,
    scale: float,
    kv_heads: int,
    head_offset: int,
) -> None:
    """Write the attention of the bank's rows: of queries [batch, heads, 1, HEAD_DIM] over what the bank holds, the
    newest token too."""
    held_k, held_v = bank.memory
    device, rows = q.device, len(bank.rows)
    _, classes, places = bank.until.shape
    config, tiles, splits = _plan(device, q.element_size(), min(q.shape[1], SHARE), rows, bank.used)
    parts = counts = None
    if splits > 1:
        parts = torch.empty(rows * tiles * splits * config.rows * (V_HEAD_DIM + 1), dtype=torch.float32, device=device)
        if bank.counts is None:
            bank.counts = torch.zeros(rows * tiles, dtype=torch.int32, device=device)
        counts = bank.counts
    kind = q.dtype, None if sinks is None else sinks.dtype, parts is None
    launch = _attending(device, kind, config, classes == 1, precision(q))
    tensors = q, out, held_k, held_v, bank.until, bank.odd, bank.index, lengths, news, sinks, parts, counts
    numbers = scale * LOG2_E, kv_heads, q.shape[1], SHARE, head_offset % SHARE, classes, bank.used, places - 1
    numbers = *numbers, *q.stride()[:2], *out.stride()[:2], splits
    launch(attn_cache_read, (rows, tiles, splits), tensors, numbers)


@cache
def _config(device: torch.device, item: int) -> configs.Config:
    return configs.newest(arch(device), WIDEST, item)


def _plan(device: torch.device, item: int, share: int, rows: int, used: int) -> tuple[configs.Config, int, int]:
    """The configuration, tiles of query heads of a row, and the programs that share the keys of each."""
    config = _config(device, item)
    tiles = -(-share // config.rows)
    splits = configs.splits(processors(device), rows * tiles, used)
    return config, tiles, max(1, min(splits, configs.MOST_MERGED // (config.rows * V_HEAD_DIM)))


@cache
def _putting(device: torch.device, _dtype: torch.dtype, _no_windows: bool, _no_sinks: bool, classes: int) -> Launch:
    return Launch(device, BLOCK_C=classes, num_warps=4, enable_fp_fusion=True)


@cache
def _attending(
    device: torch.device, _kind: tuple[Any, ...], config: configs.Config, are_alike: bool, precision: str
) -> Launch:
    return Launch(
        device,
        anywhere=9,
        BLOCK_H=config.rows,
        BLOCK_N=config.keys,
        ARE_ALIKE=are_alike,
        STAGES=config.stages,
        PRECISION=precision,
        num_warps=config.warps,
        num_stages=config.stages,
        enable_fp_fusion=True,
    )
