"""The same mask by others, in alternation with ours: FlexAttention, on its own kernels and on FlashAttention-4's, and
those of `installed.py`."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, compiler
from torch._functorch import config as functorch

from benchmarks.gpu import attention, witness
from benchmarks.gpu.cases import Case, by_name
from benchmarks.gpu.device import Device
from benchmarks.gpu.installed import dkernel, flash_sparse, imported
from benchmarks.gpu.witness import Attention, WrongError

LEAST = 128  # of FlexAttention's blocks: its default, and what its backward's own tiles fit in
IN_BLOCKS = ("flex", "fa4")  # peers that are tried in blocks of several sizes


def measure(
    device: Device, *, peer: str, case: str, batch: int, tokens: int, sizes: Sequence[int] = (), **_: object
) -> Iterator[dict[str, object]]:
    """A row for each direction: our times, the peer's, and how many times as fast ours is. The peer's results go
    through the same check as ours: both compute the same."""
    facts = by_name(case)
    package = importlib.import_module(facts.module)
    witness.check_mask(facts, package, tokens)
    begin = time.perf_counter()
    calls = {name: make() for name, make in others(device, facts, tokens, peer, sizes).items()}
    device.wait()
    tables_s = round((time.perf_counter() - begin) / len(calls), 4)
    for direction, inputs in attention.both_ways(device.sequences(facts, batch, tokens)):
        error = witness.check_sequences(facts, device.tolerance, package.attention, *inputs)
        able = {name: call for name, call in calls.items() if has(device, peer, name, direction)}
        errors = _errors(facts, device, able, inputs)
        everyone = {"ours": package.attention, **{name: calls[name] for name in errors}}
        times = device.alternate({name: attention.call_of(call, inputs) for name, call in everyone.items()})
        best = min(errors, key=lambda name: times[name].median)
        yield {
            "direction": direction,
            "head_dim": facts.head_dim,
            "block": facts.block,
            "error": error,
            **times["ours"].row(),
            **times[best].row("peer_"),
            "peer_error": errors[best],
            "peer_tables_s": tables_s,
            "over_peer": round(times[best].median / times["ours"].median, 3),
            **({"peer_block": int(best)} if peer in IN_BLOCKS else {}),
        }


def others(
    device: Device, case: Case, tokens: int, peer: str, sizes: Sequence[int]
) -> dict[str, Callable[[], Attention]]:
    """The functions that make the peer's attention, by the size of its blocks."""
    if peer == "flex":
        return flex(device, case, tokens, sizes)
    if peer == "fa4":
        imported("flash_attn.cute", "FlashAttention-4")
        return flex(device, case, tokens, sizes, backend="FLASH")
    return {"dkernel": dkernel, "flash_sparse": flash_sparse}[peer](device, case, tokens)


def has(device: Device, peer: str, name: str, direction: str) -> bool:
    """Whether it is tried: FlexAttention's backward does not compile for blocks that its own tiles do not fit in, and
    takes more than a minute to say so."""
    return peer != "flex" or device.toy or direction == "forward" or int(name) >= LEAST


def _errors(case: Case, device: Device, others: Mapping[str, Attention], inputs: list[Tensor]) -> dict[str, float]:
    """The error of each peer that runs; when none does, raises what stopped the last one."""
    errors: dict[str, float] = {}
    failure: Exception | None = None
    for name, other in others.items():
        try:
            errors[name] = witness.check_sequences(case, device.tolerance, other, *inputs)
        except WrongError as wrong:
            raise WrongError(f"the peer's {wrong}") from wrong
        except Exception as error:  # tiles that a block does not hold, shared memory, no backward
            failure = error
    if failure and not errors:
        raise failure
    return errors


def flex(
    device: Device, case: Case, tokens: int, sizes: Sequence[int], backend: str = ""
) -> dict[str, Callable[[], Attention]]:
    """FlexAttention in blocks of each size, once its mask is found to be ours."""
    compiler.reset()  # beyond some shapes it would stop compiling and run eagerly
    # its backward is timed many times after one forward, which has no room for gradients then
    functorch.donated_buffer = False  # type: ignore[assignment]

    def make(size: int) -> Attention:
        check_block_mask(case, size)
        return flex_call(device, case, tokens, size, backend)

    return {str(size): lambda size=size: make(size) for size in sizes}


def flex_call(device: Device, case: Case, tokens: int, size: int, backend: str = "") -> Attention:
    """Compiled for this very shape, with tables built block by block: nothing that it does better is left out."""
    from torch.nn.attention.flex_attention import flex_attention

    call: Any = flex_attention if device.toy else torch.compile(flex_attention, dynamic=False)
    mask = block_mask(case, tokens, size, device.name)
    own = {"BACKEND": backend} if backend else None if device.toy else tiles(case, size)
    options = {"enable_gqa": case.heads != case.kv_heads, "kernel_options": own}
    return lambda q, k, v: call(q, k, v, block_mask=mask, **options)


def tiles(case: Case, size: int) -> dict[str, int] | None:
    """FlexAttention's options for forward tiles no larger than the blocks, where its own choice might be larger, which
    it refuses. Its backward always takes its own tiles: where they are larger than the blocks, there is no backward."""
    if size >= LEAST or case.head_dim > 128:
        return None
    return {"fwd_BLOCK_M": size, "fwd_BLOCK_N": size, "fwd_num_warps": 4}


def block_mask(case: Case, tokens: int, size: int, device: str) -> Any:
    """FlexAttention's, in blocks of `size`: those that hold anything, and which of them hold everything."""
    from torch.nn.attention.flex_attention import BlockMask

    fine, count = min(size, case.block), tokens // size
    t = torch.arange(0, count * size, fine, device=device)
    i, j = t[:, None] // case.block, t[None] // case.block
    below = t[None] + fine - 1 <= t[:, None]  # the causal cut leaves such a piece whole
    tables: list[list[Tensor]] = [[], []]
    for head in range(case.heads):
        kept = case.keeps_block(torch.tensor(head, device=device), i, j)
        shape = count, size // fine, count, size // fine
        some = (kept & (t[None] <= t[:, None])).view(shape).any(3).any(1)
        whole = (kept & below).view(shape).all(3).all(1)
        for table, blocks in zip(tables, (some & ~whole, whole), strict=True):
            table.append(blocks)
    listed: list[Tensor] = []
    for blocks in (torch.stack(table)[None] for table in tables):
        listed.append(blocks.sum(-1, dtype=torch.int32))
        listed.append(torch.argsort(blocks.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32))

    def rule(b: Tensor, h: Tensor, t: Tensor, u: Tensor) -> Tensor:
        return case.keeps(h, t, u)

    return BlockMask.from_kv_blocks(*listed, BLOCK_SIZE=size, mask_mod=rule, seq_lengths=(tokens, tokens))


def check_block_mask(case: Case, size: int) -> None:
    """WrongError unless FlexAttention, by its tables and its rule, attends to what our package's mask keeps."""
    package = importlib.import_module(case.module)
    tokens = 8 * max(size, case.block)
    mask = block_mask(case, tokens, size, "cpu")
    whole, partial = (
        _listed(counts, columns).repeat_interleave(size, 1).repeat_interleave(size, 2)
        for counts, columns in (
            (mask.full_kv_num_blocks[0], mask.full_kv_indices[0]),
            (mask.kv_num_blocks[0], mask.kv_indices[0]),
        )
    )
    t, u = torch.arange(tokens)[:, None], torch.arange(tokens)[None]
    attended = whole | (partial & mask.mask_mod(None, torch.arange(case.heads)[:, None, None], t, u))
    if not torch.equal(attended, package.dense_mask(tokens)):
        raise WrongError(f"FlexAttention's mask in blocks of {size} is not ours")


def _listed(counts: Tensor, columns: Tensor) -> Tensor:
    """Which columns are listed for each row: bool [heads, rows, columns]."""
    places = torch.arange(columns.shape[-1]) < counts[..., None]
    return torch.zeros(columns.shape, dtype=torch.bool).scatter_(-1, columns.long(), places)
