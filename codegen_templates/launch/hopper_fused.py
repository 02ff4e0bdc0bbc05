"""Launches of the fused Hopper backward: where it can run, and with what. Triton is imported when it is launched."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from ..pattern import BLOCK, HEAD_DIM
from . import arrays, fused_items, hopper, hopper_backward, items
from .boxes import Boxes
from .hopper import ROWS
from .kept import Launch, only_meanwhile
from .requests import LOG2_E, MOST_TOGETHER, Requests, processors

# Whether it is taken where the Hopper backward is. Not before it has run on an sm_90 and was faster than dQ, dK and dV
# apart: so far it ran emulated only. PATTERNCC_KERNELS=fused takes it wherever it can be had.
FUSED_BY_DEFAULT = False
STAGES = {64: 4, 128: 2}  # by head_dim: slots of the ring, a power of two
REGISTERS = {64: (208, 88), 128: (240, 24)}  # of a consumer's threads, and of the two other warps'
IS_WRITTEN_FOR = hopper_backward.IS_WRITTEN_FOR and HEAD_DIM in STAGES
MOST_TILES = 1 << 31  # of dQ: they are counted in 32 bits
CLEARED = 1024  # counts that a program clears
TAKEN = 4  # numbers before the counts: the first counts items that were taken, all of them 16 bytes


def wanted(requests: Requests) -> bool:
    """Whether it is asked for, where the Hopper kernels do the backward pass."""
    is_asked = hopper.wanted() == "fused" or FUSED_BY_DEFAULT
    return is_asked and IS_WRITTEN_FOR and not requests.are_packed and requests.count <= MOST_TOGETHER


def work_of(q: torch.Tensor, requests: Requests, heads: arrays.Heads) -> fused_items.Work | None:
    """The items; None where the other kernels of the family are to be taken."""
    if requests.count * q.shape[1] * tiles_of(requests) >= MOST_TILES:
        return None
    return fused_items.work_of(requests, heads, processors(q.device), q.device)


def tiles_of(requests: Requests) -> int:
    """Tiles of dQ, of 64 positions, of a head."""
    return -(-(requests.q_start + requests.q_len) // ROWS) - requests.q_start // ROWS


def arguments(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dout: torch.Tensor,
    log_sum: torch.Tensor,
    delta: torch.Tensor,
    requests: Requests,
    heads: arrays.Heads,
    scale: float,
    grads: tuple[torch.Tensor, torch.Tensor],
    sums: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    work: fused_items.Work,
) -> tuple[int, dict[str, Any]]:
    """The programs, and the kernel's arguments by name: tensors, numbers, and `Boxes` for descriptors. `grads`: dk and
    dv; `sums`: their parts, the sums of dq, and TAKEN numbers and the counts of items that have added to them."""
    total = len(work.items) * requests.count
    run = min(BLOCK, ROWS)
    dk, dv = grads
    parts, dq_sums, counts = sums
    return min(total, processors(q.device)), {
        "q": Boxes(q, ROWS),
        "dout": Boxes(dout, ROWS),
        "k_run": Boxes(k, run),
        "v_run": Boxes(v, run),
        "log_sums": Boxes(log_sum.view(-1), ROWS),
        "deltas": Boxes(delta.view(-1), ROWS),
        "dk": dk,
        "dv": dv,
        "parts": parts,
        "dq_sums": dq_sums,
        "added": counts[TAKEN:],
        "items": work.items,
        "members": work.members,
        "lists": work.lists,
        "ranks": work.ranks,
        "pattern": work.pattern,
        "taken": counts,
        "scale": scale * LOG2_E,
        "total": total,
        "count": requests.count,
        "q_start": requests.q_start,
        "q_stop": requests.q_start + requests.q_len,
        "kv_start": requests.kv_start,
        "kv_stop": requests.kv_start + requests.kv_len,
        "s_lb": log_sum.stride(0),
        "s_lh": log_sum.stride(1),
        "s_db": dk.stride(0) // 8,
        "s_dh": dk.stride(1) // 8,
        "s_dn": dk.stride(2) // 8,
        "s_items": work.items.stride(0),
        "slots": work.parts.slots,
        "heads": q.shape[1],
        "dq_slots": tiles_of(requests),
        "ALIGN": 8,
        "STAGES": STAGES[HEAD_DIM],
        "CONSUMER_REGISTERS": REGISTERS[HEAD_DIM][0],
        "OTHER_REGISTERS": REGISTERS[HEAD_DIM][1],
    }


def fill(
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dout: torch.Tensor,
    log_sum: torch.Tensor,
    delta: torch.Tensor,
    requests: Requests,
    heads: arrays.Heads,
    scale: float,
    add_parts: Callable[[torch.Tensor, items.Work, list[torch.Tensor], Requests], None],
) -> bool:
    """Fill dq, dk and dv, and say so; False where the other kernels are to be taken. `add_parts` adds what several
    items have of a column."""
    work = work_of(q, requests, heads)
    if work is None:
        return False
    batch, n_heads, tiles, device = requests.count, q.shape[1], tiles_of(requests), q.device
    parts = torch.empty(batch, work.parts.slots, 2, BLOCK, HEAD_DIM, dtype=torch.float32, device=device)
    dq_sums = torch.empty(batch, n_heads, tiles, HEAD_DIM // 32, ROWS, 32, dtype=torch.float32, device=device)
    counts = torch.empty(TAKEN + batch * n_heads * tiles, dtype=torch.int32, device=device)
    clear_counts(counts)
    about = q, k, v, dout, log_sum, delta, requests, heads, scale
    launch(*arguments(*about, (dk, dv), (parts, dq_sums, counts), work))
    round_dq(dq_sums, counts[TAKEN:], dq, requests, scale)
    if work.parts.slots:
        add_parts(parts, work.parts, [dk, dv], requests)
    only_meanwhile(parts, dq_sums, counts)
    return True


def launch(programs: int, named: dict[str, Any]) -> None:
    from ..kernels.hopper.backward_fused import attn_bwd_fused_hopper

    hopper.launch(attn_bwd_fused_hopper, programs, named)


def clear_counts(counts: torch.Tensor) -> None:
    """Set them to zero, as each launch needs them."""
    from ..kernels.hopper.fused_ends import attn_bwd_fused_begin

    own = _launch(counts.device, None, SIZE=CLEARED)
    grid = -(-len(counts) // CLEARED), 1, 1
    own(attn_bwd_fused_begin, grid, (counts,), (len(counts),))


def round_dq(dq_sums: torch.Tensor, added: torch.Tensor, dq: torch.Tensor, requests: Requests, scale: float) -> None:
    """Write dq from its sums, 0 where nothing was added."""
    from ..kernels.hopper.fused_ends import attn_bwd_fused_end

    batch, n_heads, rows, _ = dq.shape
    numbers = scale, requests.q_start % ROWS, rows, dq_sums.shape[2], *(stride // 8 for stride in dq.stride()[:3])
    own = _launch(dq.device, dq.dtype, ALIGN=8)
    grid = dq_sums.shape[2], n_heads, batch
    own(attn_bwd_fused_end, grid, (dq_sums, added, dq), numbers)


@cache
def _launch(device: torch.device, _dtype: torch.dtype | None, **constants: int) -> Launch:
    return Launch(device, **constants, num_warps=4)
