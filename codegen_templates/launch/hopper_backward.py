"""Launches of the Hopper backward: where it can run, and with what. Gluon is imported when it is launched."""

from __future__ import annotations

from typing import Any

import torch

from ..pattern import BLOCK, HEAD_DIM
from ..rules.tables import room
from . import arrays, hopper, items, slot_lists
from .boxes import Boxes
from .clearing import clear_rows
from .hopper import ROWS
from .kept import zeros
from .requests import LOG2_E, Requests, processors
from .sums import finish
from .told import Backward, Rows

# Whether it is taken unasked. Not before tests/gpu has passed with it on an sm_90: so far it ran emulated only. The
# prototype that it follows reached 403 TFLOP/s on an H200, where the plain kernels of that time reached 268; since then
# these have reached 290 on an H100 (benchmarks/NOTES.md).
BY_DEFAULT = False
KEYS = 128  # of an item: KEYS of hopper/load_items.py
DQ_STAGES = {64: 8, 128: 5}  # by head_dim: slots of the ring, as many as shared memory holds
DKDV_STAGES = {64: 8, 128: 4}
DQ_CONSUMERS = 2
DQ_REGISTERS = 216, 72  # of a consumer's threads and of the producer's: none are spilled
DKDV_REGISTERS = {64: (208, 88), 128: (240, 24)}
# likewise where the producer has more to work out, or consumers have less: closed forms in small blocks or packed,
# tables in small blocks and packed
FEWER_REGISTERS = {64: (208, 88), 128: (232, 40)}
IS_WRITTEN_FOR = hopper.IS_WRITTEN_FOR and HEAD_DIM in DQ_STAGES
MOST_SUMS = 1 << 31  # numbers of LSE and delta: TMA counts them in 32 bits


def takes(given: Backward, grads: tuple[torch.Tensor, ...]) -> bool:
    """Whether the Hopper kernels do this backward pass, whose dq, dk and dv are `grads`, but for what `counts_dq` and
    `counts_dkdv` say."""
    family = hopper.wanted()
    if family == "triton" or not hopper.is_hopper(given.q.device):
        return False
    is_faster = BY_DEFAULT and (hopper.TABLES_BY_DEFAULT or not hopper.IS_TABLE)
    return (family in hopper.ASKED or (is_faster and hopper.is_large(given.q))) and can(given, grads)


def can(given: Backward, grads: tuple[torch.Tensor, ...]) -> bool:
    """Whether the pattern, the numbers and their places in memory are such as the kernels are written for."""
    q, k, v, dout, *_ = given
    if not IS_WRITTEN_FOR or q.dtype not in (torch.bfloat16, torch.float16):
        return False
    if any(x.dtype != q.dtype for x in (k, v, dout, *grads)) or q.numel() // HEAD_DIM >= MOST_SUMS:
        return False
    _, dk, dv = grads
    are_even = all(stride % 8 == 0 for x in grads for stride in x.stride()[:-1])
    return are_even and dk.stride() == dv.stride() and all(hopper.is_boxable(x) for x in (q, k, v, dout))


def counts_dq(requests: Requests) -> bool:
    """Whether the table that dQ reads, if it reads one, has no number of more than 32 bits."""
    return not hopper.IS_TABLE or room(requests.columns) < hopper.MOST_COLUMNS


def counts_dkdv(requests: Requests, heads: arrays.Heads) -> bool:
    """Whether the lists that dK and dV read, if they read any, have no number of more than 32 bits."""
    if not hopper.IS_TABLE:
        return True
    columns = requests.kv_start // BLOCK, requests.columns
    return slot_lists.are_counted(arrays.present(*heads), slot_lists.span_of(requests), columns)


def dq_arguments(given: Backward, dq: torch.Tensor) -> tuple[int, dict[str, Any]]:
    """The programs for dQ, and the kernel's arguments by name: tensors, numbers, and `Boxes` for descriptors."""
    q, k, v, dout, log_sum, delta, requests, heads, scale = given
    programs, named = hopper.tiles_of(Rows(q, k, v, dq, log_sum, requests, heads, scale), 0, DQ_CONSUMERS)
    named |= {
        "dout": Boxes(dout, ROWS),
        "dq": dq,
        "log_sum": log_sum,
        "delta": delta,
        "STAGES": DQ_STAGES[HEAD_DIM],
        "CONSUMER_REGISTERS": DQ_REGISTERS[0],
        "PRODUCER_REGISTERS": DQ_REGISTERS[1],
    }
    return programs, named


def work_of(
    q: torch.Tensor, requests: Requests, heads: arrays.Heads
) -> tuple[items.Work, tuple[torch.Tensor, torch.Tensor | None]]:
    """The items of dK and dV, in tiles of 128 keys, and what is read of the pattern: `row_map`'s numbers, or records of
    the tiles and their lists."""
    classes, columns = arrays.present(*heads), (requests.kv_start // BLOCK, requests.columns)
    span, lists = None, None
    if hopper.IS_TABLE:
        span = slot_lists.span_of(requests)
        pattern, lists, places = slot_lists.slot_lists(classes, span, columns, q.device)
    else:
        pattern, _, places = arrays.column_arrays(classes, requests.rows, requests.columns, q.device)
    about = places, requests.rows, columns, KEYS, requests.count, processors(q.device), requests.are_packed
    return items.work(classes, heads[1], *about, True, span, q.device), (pattern, lists)


def items_of(
    given: Backward, sums: list[torch.Tensor], parts: torch.Tensor, table: torch.Tensor
) -> tuple[int, dict[str, Any]]:
    """The programs, and what the kernels of items of keys, that of dK and dV and the fused one, are told of those in
    `table`. `sums`: where dk and dv are added up; `parts`: where columns of several items are."""
    q, _, _, dout, log_sum, delta, requests, _, scale = given
    dk, dv = sums
    total = len(table) * requests.count
    run = min(BLOCK, ROWS)
    return min(total, processors(q.device)), {
        "q": Boxes(q, ROWS),
        "dout": Boxes(dout, ROWS),
        "k_run": Boxes(given.k, run),
        "v_run": Boxes(given.v, run),
        "log_sums": Boxes(log_sum.view(-1), ROWS),
        "deltas": Boxes(delta.view(-1), ROWS),
        "dk": dk,
        "dv": dv,
        "parts": parts,
        "items": table,
        "scale": scale * LOG2_E,
        "total": total,
        "count": requests.count,
        **hopper.ends_of(requests),
        "s_lb": 0 if requests.are_packed else log_sum.stride(0),
        "s_lh": log_sum.stride(1),
        "s_db": 0 if requests.are_packed else dk.stride(0) // 8,
        "s_dh": dk.stride(1) // 8,
        "s_dn": dk.stride(2) // 8,
        "s_items": table.stride(0),
        "slots": parts.shape[1],
        "ALIGN": 8,
    }


def dkdv_arguments(
    given: Backward,
    sums: list[torch.Tensor],
    parts: torch.Tensor,
    work: items.Work,
    of_pattern: tuple[torch.Tensor, torch.Tensor | None],
    launch: int,
) -> tuple[int, dict[str, Any]]:
    """Likewise for dK and dV, of one of the launches of `work`."""
    table, has_near, has_strides = work.launches[launch]
    requests = given.requests
    programs, named = items_of(given, sums, parts, table)
    run = min(BLOCK, ROWS)
    are_small = BLOCK < ROWS
    are_fewer = requests.are_packed and are_small if hopper.IS_TABLE else requests.are_packed or are_small
    registers = (FEWER_REGISTERS if are_fewer else DKDV_REGISTERS)[HEAD_DIM]
    pattern, lists = of_pattern
    named |= {
        "q_run": Boxes(given.q, run),
        "dout_run": Boxes(given.dout, run),
        "k": Boxes(given.k, ROWS),
        "v": Boxes(given.v, ROWS),
        "log_sum": given.log_sum,
        "delta": given.delta,
        "members": work.members,
        "pattern": pattern,
        "rows": pattern if lists is None else lists,  # not read, as all that follow where they are not there
        "q_starts": table if requests.q_starts is None else requests.q_starts,
        "kv_starts": table if requests.kv_starts is None else requests.kv_starts,
        "taken": zeros(table.device) if named["total"] > programs else table,
        "lead": work.lead,
        "s_members": work.members.stride(0),
        "HAS_NEAR": has_near,
        "HAS_STRIDES": has_strides,
        "IS_PACKED": requests.are_packed,
        "STAGES": DKDV_STAGES[HEAD_DIM],
        "CONSUMER_REGISTERS": registers[0],
        "PRODUCER_REGISTERS": registers[1],
    }
    return programs, named


def fill_dq(given: Backward, dq: torch.Tensor) -> None:
    if given.requests.q_starts is not None:  # packed rows may be of no sequence: the kernel writes the others
        clear_rows(dq[0].transpose(0, 1), None, given.requests.q_starts)
    launch_dq(*dq_arguments(given, dq))


def fill_dkdv(given: Backward, dk: torch.Tensor, dv: torch.Tensor) -> None:
    q, k, requests = given.q, given.k, given.requests
    work, of_pattern = work_of(q, requests, given.heads)
    sums = [dk, dv]
    if len(work.launches) > 1:  # they add to each other's sums
        sums = [torch.empty(k.shape, dtype=torch.float32, device=q.device) for _ in sums]
    if requests.kv_starts is not None:
        for x in sums:
            clear_rows(x[0].transpose(0, 1), None, requests.kv_starts)
    parts = torch.empty(requests.count, work.slots, 2, BLOCK, HEAD_DIM, dtype=torch.float32, device=q.device)
    for number in range(len(work.launches)):
        launch_dkdv(*dkdv_arguments(given, sums, parts, work, of_pattern, number))
    finish(parts, work, sums, (dk, dv), requests)


def launch_dq(programs: int, named: dict[str, Any]) -> None:
    from ..kernels.hopper.backward_dq import attn_bwd_dq_hopper

    hopper.launch(attn_bwd_dq_hopper, programs, named)


def launch_dkdv(programs: int, named: dict[str, Any]) -> None:
    from ..kernels.hopper.backward_dkdv import attn_bwd_dkdv_hopper

    hopper.launch(attn_bwd_dkdv_hopper, programs, named)
