"""Launches of the fused Hopper backward: where it can run, and with what. Gluon is imported when it is launched."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from ..pattern import BLOCK, HEAD_DIM
from . import arrays, fused_items, hopper, hopper_backward
from .hopper import ROWS
from .kept import Launch, only_meanwhile, zeros
from .requests import MOST_TOGETHER, Requests, processors
from .sums import finish
from .told import Backward

# Whether it is taken where the Hopper backward is. Not before it has run on an sm_90 and was faster than dQ, dK and dV
# apart: so far it ran emulated only. PATTERNCC_KERNELS=fused takes it wherever it can be had.
FUSED_BY_DEFAULT = False
STAGES = {64: 4, 128: 2}  # by head_dim: slots of the ring, a power of two
REGISTERS = {64: (208, 88), 128: (240, 24)}  # of a consumer's threads, and of the two other warps'
IS_WRITTEN_FOR = hopper_backward.IS_WRITTEN_FOR and HEAD_DIM in STAGES
MOST_TILES = 1 << 31  # of dQ: they are counted in 32 bits
CLEARED = 1024  # counts that a program clears


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
    given: Backward,
    grads: list[torch.Tensor],
    sums: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    work: fused_items.Work,
) -> tuple[int, dict[str, Any]]:
    """The programs, and the kernel's arguments by name: tensors, numbers, and `Boxes` for descriptors. `grads`: dk and
    dv; `sums`: their parts, the sums of dq, and the counts of items that have added to them."""
    parts, dq_sums, counts = sums
    programs, named = hopper_backward.items_of(given, grads, parts, work.items)
    named |= {
        "dq_sums": dq_sums,
        "added": counts,
        "members": work.members,
        "lists": work.lists,
        "ranks": work.ranks,
        "pattern": work.pattern,
        "taken": zeros(counts.device),
        "heads": given.q.shape[1],
        "dq_slots": tiles_of(given.requests),
        "STAGES": STAGES[HEAD_DIM],
        "CONSUMER_REGISTERS": REGISTERS[HEAD_DIM][0],
        "OTHER_REGISTERS": REGISTERS[HEAD_DIM][1],
    }
    return programs, named


def fill(given: Backward, dq: torch.Tensor, dk: torch.Tensor, dv: torch.Tensor) -> bool:
    """Fill dq, dk and dv, and say so; False where the other kernels are to be taken."""
    q, requests = given.q, given.requests
    work = work_of(q, requests, given.heads)
    if work is None:
        return False
    batch, n_heads, tiles, device = requests.count, q.shape[1], tiles_of(requests), q.device
    parts = torch.empty(batch, work.parts.slots, 2, BLOCK, HEAD_DIM, dtype=torch.float32, device=device)
    dq_sums = torch.empty(batch, n_heads, tiles, HEAD_DIM // 32, ROWS, 32, dtype=torch.float32, device=device)
    counts = torch.empty(batch * n_heads * tiles, dtype=torch.int32, device=device)
    clear_counts(counts)
    launch(*arguments(given, [dk, dv], (parts, dq_sums, counts), work))
    round_dq(dq_sums, counts, dq, requests, given.scale)
    finish(parts, work.parts, [dk, dv], (dk, dv), requests)
    only_meanwhile(dq_sums, counts)
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
