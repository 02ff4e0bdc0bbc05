"""Launches of the kernels: which head goes first, the pattern's arrays on each device, grids."""

from __future__ import annotations

from functools import cache, lru_cache

import torch

from . import configs
from .configs import Config
from .forward import (
    CLASS_INTS,
    attn_fwd,
)
from .pattern import BLOCK, CLASS_OF, CLASSES, FORM, HEAD_DIM, HEADS, KV_HEADS, ROWS_PER_TILE_FREE
from .tables import row_table

LOG2_E = 1.4426950408889634


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    layer: int,
    scale: float,
    head_offset: int,
    q_start: int,
    kv_start: int,
    config: Config | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output like q [batch, heads, q_len, head_dim] and LSE [batch, heads, q_len], fp32, natural logarithm.

    The first query stands at position q_start, the first key at kv_start, a multiple of the block.
    """
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    place = {"q_len": q.shape[2], "kv_len": k.shape[2], "q_start": q_start, "kv_start": kv_start}
    _forward(q, k, v, out, lse, layer, scale, head_offset, config, requests=q.shape[0], **place)
    return out, lse


def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    layer: int,
    scale: float,
    head_offset: int,
    config: Config | None,
    *,
    requests: int,
    q_len: int,  # packed: the longest
    kv_len: int,
    q_start: int = 0,
    kv_start: int = 0,
    q_starts: torch.Tensor | None = None,
    kv_starts: torch.Tensor | None = None,
    pages: torch.Tensor | None = None,
    splits: int = 1,
) -> None:
    """Launch the kernel on views [batch or pages, heads, rows, head_dim]."""
    if not requests or not q_len:
        return
    if scale < 0:  # a maximum of scores must be one of scaled scores
        q, scale = -q, -scale
    result = out
    if not q.is_cuda and q.dtype == torch.bfloat16:  # Triton's interpreter multiplies bfloat16 wrongly
        q, k, v, out = q.float(), k.float(), v.float(), torch.empty_like(out, dtype=torch.float32)
    config = config or configs.forward(arch(q.device), HEAD_DIM, q.element_size())
    rows = config.rows if ROWS_PER_TILE_FREE else min(config.rows, BLOCK)
    if q_starts is None:
        tiles = -(-(q_start + q_len) // rows) - q_start // rows
    else:
        tiles = q_len // rows + 2
    heads = q.shape[1]
    lowest = q_start // BLOCK if q_starts is None else min(0, kv_len - q_len) // BLOCK
    pattern, columns, groups = arrays(
        layer, head_offset, heads, 1, -(-(q_start + q_len) // BLOCK), -(-(kv_start + kv_len) // BLOCK), lowest, q.device
    )
    tensors = (q, k, v, out)
    align = 16 // q.element_size()
    if any(stride % align for x in tensors for stride in x.stride()[:3]):
        align = 1
    attn_fwd[(tiles * splits, len(groups), requests)](
        *tensors,
        lse,
        groups,
        pattern,
        columns,
        q_starts,
        kv_starts,
        pages,
        scale * LOG2_E,
        q_len,
        kv_len,
        q_start,
        kv_start,
        *(stride // align for x in tensors for stride in x.stride()[:3]),
        0,
        *lse.stride()[:2],
        0,
        pages.stride(0) if pages is not None else 0,
        splits,
        BLOCK_Q=rows,
        BLOCK_H=1,
        BLOCK_N=config.keys,
        PAGE=k.shape[2] if pages is not None else 0,
        ALIGN=align,
        IS_PACKED=q_starts is not None,
        IS_LOOKED_UP=FORM == "table" or pages is not None,
        STAGES=config.stages,
        PRECISION="ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        num_warps=config.warps,
        num_stages=config.stages,
        enable_fp_fusion=True,
    )
    if out is not result:
        result.copy_(out)


def arrays(
    layer: int, head_offset: int, heads: int, packed: int, rows: int, columns: int, first: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """What kernels read of the pattern: the classes' integers, or the tables of rows first..rows-1; and the heads."""
    if FORM == "closed":
        pattern, places = class_ints(device)
        return pattern, None, head_groups(layer, head_offset, heads, packed, places, device)
    classes = tuple(sorted(set(CLASS_OF[layer][head_offset : head_offset + heads])))
    rows, columns, first = room(rows), room(columns), -room(-first)
    pattern, entries, places = class_tables(classes, rows, columns, first, device)
    return pattern, entries, head_groups(layer, head_offset, heads, packed, places, device)


def room(n: int) -> int:
    """A little more, so that a growing sequence rarely asks for other arrays."""
    step = max(16, 1 << max(n, 1).bit_length() >> 3)
    return -(-max(n, 0) // step) * step


@cache
def class_ints(device: torch.device) -> tuple[torch.Tensor, tuple[tuple[int, int], ...]]:
    """The classes' integers, and where each class has its own."""
    width = len(CLASS_INTS[0])
    numbers = torch.tensor([number for row in CLASS_INTS for number in row] or [0], dtype=torch.int32, device=device)
    return numbers, tuple((klass, klass * width) for klass in range(len(CLASS_INTS)))


@lru_cache(maxsize=8)
def class_tables(
    classes: tuple[int, ...], rows: int, columns: int, first: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, tuple[tuple[int, int], ...]]:
    """A record of each row of each class (where its columns start, where those kept in part start, where they stop, and
    the class's integers), all their columns, and where the record of a class's row 0 is."""
    records, entries, taken = [], [], 0
    for klass in classes:
        pointers, whole, listed = row_table(klass, rows, columns, device, first)
        pointers, whole = pointers[: rows - first + 1] + taken, whole[: rows - first]
        same = [torch.full_like(pointers[1:], number) for number in CLASS_INTS[klass]]
        records.append(torch.stack([pointers[:-1], pointers[:-1] + whole, pointers[1:], *same], 1))
        entries.append(listed)
        taken += len(listed)
    width = 3 + len(CLASS_INTS[0])
    places = tuple((klass, (n * (rows - first) - first) * width) for n, klass in enumerate(classes))
    return torch.cat(records), torch.cat(entries), places


@cache
def head_groups(
    layer: int,
    head_offset: int,
    heads: int,
    packed: int,
    places: tuple[tuple[int, int], ...],
    device: torch.device,
) -> torch.Tensor:
    """[groups, 2 + packed] int32: KV head, the place of the class, query heads (-1: none); heavy classes first."""
    share, place, members = HEADS // KV_HEADS, dict(places), {}
    for head, klass in enumerate(CLASS_OF[layer][head_offset : head_offset + heads]):
        members.setdefault((-weight(klass), head // share, klass), []).append(head)
    groups = []
    for (_, kv_head, klass), own in sorted(members.items()):
        for n in range(0, len(own), packed):
            part = own[n : n + packed]
            groups.append([kv_head, place[klass], *part, *[-1] * (packed - len(part))])
    return torch.tensor(groups, dtype=torch.int32, device=device)


def weight(klass: int, row: int = 4096) -> float:
    """About how many columns a row far down keeps."""
    if CLASSES[klass]["closed"] is None:
        return float(row_table(klass, 64, 64)[1][32:].float().mean()) * row / 64
    sink, bands = CLASSES[klass]["closed"]
    spans = (
        (min(row, row if high is None else high) - max(low or 0, 0), every, residues)
        for low, high, every, residues, _ in bands
    )
    return sink + sum(max(span, 0) * len(residues) / every for span, every, residues in spans)


@cache
def arch(device: torch.device) -> str:
    """The name of the device's architecture, as `patterncc compile --arch` takes it."""
    if device.type != "cuda":
        return "interpreter"
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
