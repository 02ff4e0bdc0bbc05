"""Launches of the Hopper forward: where it can run, and with what. Gluon is imported when there is something to do."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch

from ..pattern import BLOCK, CLASSES, FORM, HEAD_DIM, ROWS_PER_TILE_FREE, SOFTCAP, V_HEAD_DIM
from ..rules.tables import BITS, room
from . import arrays
from .boxes import CHUNK as CHUNK
from .boxes import Boxes
from .clearing import clear_rows
from .kept import Launch, hashed, zeros
from .requests import LOG2_E, Requests, arch, processors
from .told import Rows

SWITCH, FAMILIES = "PATTERNCC_KERNELS", ("auto", "triton", "gluon", "fused")
ASKED = ("gluon", "fused")  # wherever they can be had
TESTED = ("3.6", "3.9")  # versions of Triton: Gluon is not stable, others take the plain kernels
ROWS = 64  # of hopper/tiles.py
WIDTH = 1 << (HEAD_DIM - 1).bit_length()  # of the boxes that take a head: TMA fills zeros behind its numbers
CONSUMERS = {64: 3, 128: 2, 256: 2}  # of a program, by width
LEAST_RUN = 16  # keys that lie side by side in memory
# By width: slots of the ring, as many as shared memory holds; of rings of keys and of values, where that has no room
# for three slots.
STAGES = {64: {"STAGES": 8}, 128: {"STAGES": 6}, 256: {"K_STAGES": 2, "V_STAGES": 3}}
IS_WIDE = "K_STAGES" in STAGES.get(WIDTH, {})
REGISTERS = {64: (144, 80), 128: (224, 56), 256: (216, 72)}  # of a consumer's threads, and of the producer's
LEAST_TILES = 8  # for each processor
IS_FASTER = HEAD_DIM == 128  # than the plain kernels, as measured on an H100 with blocks of 16 and 64; not at 64
IS_TABLE = FORM == "table"
# Whether tables are taken unasked: not before they were measured, which no GPU has done yet.
TABLES_BY_DEFAULT = False
MOST_COLUMNS = 1 << 31 - BITS  # entries of a tile's table are int32
IS_WRITTEN_FOR = (IS_TABLE or ROWS_PER_TILE_FREE) and BLOCK >= LEAST_RUN and WIDTH in STAGES
IS_WRITTEN_FOR &= HEAD_DIM % 8 == 0  # rows of 16 bytes
IS_WRITTEN_FOR &= not SOFTCAP and V_HEAD_DIM == HEAD_DIM  # the plain kernels take all scores and widths


def wanted() -> str:
    """What $PATTERNCC_KERNELS says: auto, triton, gluon, or fused, which is gluon with the fused backward where it can
    be had; ValueError for anything else."""
    family = os.environ.get(SWITCH) or "auto"
    if family not in FAMILIES:
        raise ValueError(f"{SWITCH} is one of {', '.join(FAMILIES)}; it is {family!r}")
    return family


def takes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, requests: Requests) -> bool:
    """Whether the Hopper kernels do this launch: where they were measured to be faster, or wherever they can."""
    family = wanted()
    if family == "triton" or not is_hopper(q.device):
        return False
    is_faster = IS_FASTER and (TABLES_BY_DEFAULT or not IS_TABLE)
    return (family in ASKED or (is_faster and is_large(q))) and can(q, k, v, out, requests)


def is_large(q: torch.Tensor) -> bool:
    """Whether there are tiles enough that the kernel runs longer than Python takes for its launch."""
    return q.numel() >= LEAST_TILES * processors(q.device) * CONSUMERS[WIDTH] * ROWS * HEAD_DIM


@cache
def is_hopper(device: torch.device) -> bool:
    """Whether the device is an sm_90, and Triton a version that is tested."""
    if arch(device) != "sm_90":
        return False
    import triton

    return ".".join(triton.__version__.split(".")[:2]) in TESTED


def can(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, requests: Requests) -> bool:
    """Whether the pattern, the numbers and their places in memory are such as the kernels are written for."""
    if not IS_WRITTEN_FOR or q.dtype not in (torch.bfloat16, torch.float16) or out.dtype != q.dtype:
        return False
    if IS_TABLE and room(requests.columns) >= MOST_COLUMNS:
        return False
    if requests.pages is not None and _run(k.shape[1]) < LEAST_RUN:
        return False
    return all(is_boxable(x) for x in (q, k, v)) and all(stride % 8 == 0 for stride in out.stride()[:-1])


def is_boxable(x: torch.Tensor) -> bool:
    """Whether TMA can read it: rows of 16 bytes, no dimension that repeats itself."""
    dims = zip(x.shape[:-1], x.stride()[:-1], strict=True)
    return x.data_ptr() % 16 == 0 and x.numel() > 0 and all(n == 1 or (s > 0 and s % 8 == 0) for n, s in dims)


def in_one_batch(given: Rows) -> Rows:
    """Views [batch or pages, heads, rows, ...] of packed tensors."""
    q, out = (x.transpose(0, 1)[None] for x in (given.q, given.out))
    k, v = (x.transpose(0, 1)[None] if given.requests.pages is None else x.transpose(1, 2) for x in (given.k, given.v))
    return given._replace(q=q, k=k, v=v, out=out, sums=given.sums[None])


def _run(page: int) -> int:
    """Keys that lie side by side in memory wherever a block begins; page 0: not paged."""
    return min(BLOCK, page & -page or ROWS, ROWS)


def arguments(given: Rows) -> tuple[int, dict[str, Any]]:
    """The programs, and the kernel's arguments by name: tensors, numbers, and `Boxes` where it takes descriptors."""
    requests = given.requests
    page = 0 if requests.pages is None else given.k.shape[1]
    given = in_one_batch(given) if requests.are_packed else given
    programs, named = tiles_of(given, page, CONSUMERS[WIDTH])
    named |= {
        "out": given.out,
        "lse": given.sums,
        "pages": named["groups"] if requests.pages is None else requests.pages,  # not read where there are none
        "s_pages": 0 if requests.pages is None else requests.pages.stride(0),
        "PAGE": page,
        "CONSUMER_REGISTERS": REGISTERS[WIDTH][0],
        "PRODUCER_REGISTERS": REGISTERS[WIDTH][1],
    }
    return programs, named | STAGES[WIDTH]


@cache
def every(page: int) -> int:
    """How many blocks apart the columns of a stride are that are read several at a time; 0: there are none. Of several
    strides that is the one with most columns."""
    if page or BLOCK >= ROWS:
        return 0
    bands = [band for x in CLASSES if x["closed"] is not None for band in x["closed"][1]]
    return min((n for _, _, n, _, _ in bands if n > 1), default=0)


def runs_of(k: torch.Tensor, v: torch.Tensor, page: int, other: torch.Tensor) -> dict[str, Boxes | torch.Tensor]:
    """Keys and values in boxes smaller than 64 rows, and of several blocks of a stride; `other` where they are not
    read."""
    run, period = _run(page), BLOCK * every(page)
    return {
        "k_run": Boxes(k, run) if run < ROWS else other,
        "v_run": Boxes(v, run) if run < ROWS else other,
        "k_far": Boxes(k, BLOCK, period) if period else other,
        "v_far": Boxes(v, BLOCK, period) if period else other,
    }


def tiles_of(given: Rows, page: int, consumers: int) -> tuple[int, dict[str, Any]]:
    """The programs, and what the kernels of a tile of rows, forward and dQ, are told of it; all tensors are [batch or
    pages, heads, rows, ...]."""
    q, k, v, out, sums, requests, heads, scale = given
    tile = consumers * ROWS
    pattern, columns, groups = arrays.tile_groups(heads, requests.rows, requests.columns, tile, q.device)
    step = tile if IS_TABLE else ROWS  # tiles of a table begin at multiples of their size
    # where the last packed request ends is known to the device alone
    begin = 1 - step if requests.are_packed else requests.q_start // step * step
    tiles = -(-(requests.q_start + requests.q_len - begin) // tile)
    total = tiles * len(groups) * requests.count
    programs = min(total, processors(q.device))
    return programs, {
        "q": Boxes(q, ROWS),
        "k": Boxes(k, ROWS),
        "v": Boxes(v, ROWS),
        **runs_of(k, v, page, groups),
        "groups": groups,
        "pattern": pattern,
        "columns": groups if columns is None else columns,  # not read, as all that follow where they are not there
        "q_starts": groups if requests.q_starts is None else requests.q_starts,
        "kv_starts": groups if requests.kv_starts is None else requests.kv_starts,
        "taken": zeros(q.device) if total > programs else groups,
        "scale": scale * LOG2_E,
        "tiles": tiles,
        "total": total,
        "heads": len(groups),
        "t_begin": begin,
        **ends_of(requests),
        "s_ob": out.stride(0) // 8,
        "s_oh": out.stride(1) // 8,
        "s_on": out.stride(2) // 8,
        "s_lb": 0 if requests.are_packed else sums.stride(0),
        "s_lh": sums.stride(1),
        "periods": k.shape[2] // (BLOCK * (every(page) or 1)),
        "CONSUMERS": consumers,
        "RUN": _run(page),
        "EVERY": every(page),
        "ALIGN": 8,
        "IS_PACKED": requests.are_packed,
    }


def ends_of(requests: Requests) -> dict[str, int]:
    """The positions where queries and keys begin and stop."""
    return {
        "q_start": requests.q_start,
        "q_stop": requests.q_start + requests.q_len,
        "kv_start": requests.kv_start,
        "kv_stop": requests.kv_start + requests.kv_len,
    }


def forward(given: Rows) -> None:
    """Launch the kernel, which writes output and LSE."""
    clear(given.out, given.sums, given.requests)
    if IS_WIDE:
        from ..kernels.hopper.forward_wide import (
            attn_fwd_wide_hopper as kernel,
        )
    else:
        from ..kernels.hopper.forward import (
            attn_fwd_hopper as kernel,
        )

    launch(kernel, *arguments(given))


def launch(kernel: Any, programs: int, named: dict[str, Any]) -> None:
    """Launch a kernel of this family with its arguments by name: tensors and `Boxes` first, then numbers, constants."""
    hashed(kernel, set())  # before `cache` asks for its hash
    constants = tuple((name, x) for name, x in named.items() if name.isupper())
    others = [named[name] for name in kernel.arg_names[: -len(constants)]]
    tensors = tuple(x for x in others if isinstance(x, torch.Tensor | Boxes))
    kinds = tuple(x.tensor.dtype if isinstance(x, Boxes) else x.dtype for x in tensors)
    own = _launch(tensors[0].device, kernel, kinds, constants)
    own(kernel, (programs, 1, 1), tensors, tuple(others[len(tensors) :]))


@cache
def _launch(
    device: torch.device, _kernel: Any, _kinds: tuple[torch.dtype, ...], constants: tuple[tuple[str, Any], ...]
) -> Launch:
    return Launch(device, **dict(constants), num_warps=4)


def clear(out: torch.Tensor, lse: torch.Tensor, requests: Requests) -> None:
    """Write 0 and -inf for packed rows that may be of no request: the kernel writes the others."""
    if requests.q_total and requests.q_starts is not None:
        clear_rows(out, lse, requests.q_starts)
