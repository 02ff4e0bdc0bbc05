"""A context split over ranks: which blocks of K and V each one needs of which other, and their exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, distributed

from ..api.dispatch import autocast
from ..api.ops import attention
from ..checks.shapes import DTYPES, check_alike, check_layer, check_length
from ..checks.values import MOST_ENTRIES, check_dtype, check_tensors, counted, described, numbered, whole
from ..pattern import BLOCK, CLASS_OF, HEAD_DIM, HEADS, NAME, V_HEAD_DIM
from ..rules.heads import kv_head
from ..rules.tables import row_table
from .failures import meet, told

Places = tuple[Tensor, Tensor]  # KV heads and positions of the tokens that are sent


@dataclass(frozen=True, eq=False)
class ExchangePlan:
    """What ranks send each other: rank r holds blocks boundaries[r] to boundaries[r + 1] - 1 of q, k and v."""

    length: int  # tokens
    boundaries: tuple[int, ...]  # in blocks
    layer: int
    head_offset: int
    needs: tuple[tuple[Tensor, ...], ...]  # [rank][KV head]: the blocks of others that its rows read, ascending

    @property
    def ranks(self) -> int:
        return len(self.boundaries) - 1

    def queries(self, rank: int) -> tuple[int, int]:
        """(first, stop) of the rank's own tokens."""
        rank = self._rank("rank", rank)
        return tuple(min(bound * BLOCK, self.length) for bound in self.boundaries[rank : rank + 2])  # type: ignore[return-value]

    def keys(self, rank: int) -> tuple[int, int]:
        """(first, stop) of the smallest range of tokens with the rank's own and all that it reads."""
        first, stop = self.queries(rank)
        needed = [blocks for blocks in self.needs[rank] if len(blocks)]
        ends = [min(int(blocks[-1] + 1) * BLOCK, self.length) for blocks in needed]
        return min([first, *(int(blocks[0]) * BLOCK for blocks in needed)]), max([stop, *ends])

    def blocks(self, source: int, target: int) -> tuple[Tensor, ...]:
        """Of each KV head, the blocks that `source` sends to `target`, ascending: int64."""
        source, target = self._rank("source", source), self._rank("target", target)
        first, stop = self.boundaries[source : source + 2]
        return tuple(blocks[(blocks >= first) & (blocks < stop)] for blocks in self.needs[target])

    def tokens(self, source: int, target: int) -> int:
        """Key tokens sent, summed over KV heads."""
        return len(self._places(source, target)[0])

    def bytes(self, source: int, target: int, dtype: torch.dtype = torch.bfloat16) -> int:
        """K and V sent forward for one sequence, and as much of dK and dV back, the other way."""
        check_dtype(dtype, DTYPES)
        return (HEAD_DIM + V_HEAD_DIM) * dtype.itemsize * self.tokens(source, target)

    def _rank(self, name: str, rank: int) -> int:
        if not 0 <= whole(name, rank) < self.ranks:
            raise ValueError(f"the plan has {numbered('rank', self.ranks)}; {name}={rank} is none of them")
        return int(rank)

    def _places(self, source: int, target: int) -> Places:
        """The tokens sent, KV head by KV head: heads and absolute positions."""
        heads, positions = [], []
        for head, blocks in enumerate(self.blocks(source, target)):
            tokens = (blocks[:, None] * BLOCK + torch.arange(BLOCK, device="cpu")).flatten()
            positions.append(tokens[tokens < self.length])
            heads.append(torch.full_like(positions[-1], head))
        return torch.cat(heads), torch.cat(positions)


def exchange_plan(
    length: int, ranks: int | Sequence[int], *, layer: int = 0, heads: int | None = None, head_offset: int = 0
) -> ExchangePlan:
    """What ranks must send each other for attention over `length` tokens, split among them.

    `ranks`: how many, which hold equal runs of whole blocks; or the boundaries of their runs, in blocks, from 0 to the
    number of blocks: unequal runs balance unequal work. `heads` query heads from `head_offset` on are present, by
    default all that follow. A block is sent for a KV head when any of its query heads, in any of the rank's rows, keeps
    any of its tokens.
    """
    layer = check_layer(layer)
    check_length(length=length)
    length, head_offset = int(length), whole("head_offset", head_offset)
    rows = -(-length // BLOCK)
    boundaries = _boundaries(rows, ranks)
    heads = HEADS - head_offset if heads is None else whole("heads", heads)
    if not 0 <= head_offset < head_offset + heads <= HEADS:
        raise ValueError(f"{NAME} has {numbered('head', HEADS)}, not {head_offset} to {head_offset + heads - 1}")
    groups: dict[int, set[int]] = {}
    for head in range(head_offset, head_offset + heads):
        groups.setdefault(kv_head(head, 0), set()).add(CLASS_OF[layer][head])
    read = {klass: _columns_read(klass, rows, boundaries) for klass in set().union(*groups.values())}
    unions = [torch.stack([read[klass] for klass in classes]).any(0) for classes in groups.values()]  # [ranks, rows]
    needs = tuple(tuple(union[rank].nonzero()[:, 0] for union in unions) for rank in range(len(boundaries) - 1))
    return ExchangePlan(length, boundaries, layer, head_offset, needs)


def sparse_all_gather(plan: ExchangePlan, k: Tensor, v: Tensor, *, group: Any = None) -> tuple[Tensor, Tensor]:
    """K and V of tokens plan.keys(rank), from what each rank of a process group holds: a sparse all-gather.

    k, v: this rank's own tokens [batch, kv_heads, tokens, head_dim], of one dtype; under autocast they are cast before
    they are sent. What no row of this rank reads is 0. The gradient is the sparse reduce-scatter of dK and dV: parts of
    other ranks are added in their order, in fp32. Where a rank fails, those that wait for it raise its message (on a
    GPU, at the process group's own timeout).
    """
    with told(group):
        return _gathered(plan, k, v, group)


def _gathered(plan: ExchangePlan, k: Tensor, v: Tensor, group: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(plan, ExchangePlan):
        raise TypeError(f"plan is what exchange_plan gives; got {described(plan)}")
    check_tensors(k=k, v=v)
    rank = distributed.get_rank(group)
    first, stop = plan.queries(rank)
    if distributed.get_world_size(group) != plan.ranks:
        raise ValueError(
            f"the plan is for {counted(plan.ranks, 'rank')}; the group has {distributed.get_world_size(group)}"
        )
    wanted = len(plan.needs[rank]), stop - first
    if k.shape[:1] != v.shape[:1] or k.shape[1:] != (*wanted, HEAD_DIM) or v.shape[1:] != (*wanted, V_HEAD_DIM):
        of_v = f" and [.., {V_HEAD_DIM}]" if V_HEAD_DIM != HEAD_DIM else ""
        raise ValueError(
            f"rank {rank} of the plan holds k and v [batch, {wanted[0]}, {wanted[1]}, {HEAD_DIM}]{of_v}; "
            f"got {list(k.shape)} and {list(v.shape)}"
        )
    k, v = autocast(k, v)
    check_alike(k=k, v=v)
    return _Exchange.apply(k, v, plan, group, rank)  # type: ignore[return-value]


def attention_split(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: ExchangePlan,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    group: Any = None,
    sinks: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`attention` of this rank's queries over the keys of all ranks, of which only those are fetched that are read.

    q, k, v: this rank's tokens, plan.queries(rank); may be none. Differentiable; every rank of the group calls it.
    """
    with told(group):
        k, v = _gathered(plan, k, v, group)
        rank = distributed.get_rank(group)
        place = {"layer": plan.layer, "head_offset": plan.head_offset}
        starts = {"q_start": plan.queries(rank)[0], "kv_start": plan.keys(rank)[0] if k.shape[2] else 0}
        return attention(q, k, v, scale=scale, return_lse=return_lse, sinks=sinks, **place, **starts)


class _Exchange(torch.autograd.Function):
    """The exchange as an autograd function: forward K and V that are read, backward the gradients of what was sent."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, plan: ExchangePlan, group: Any, rank: int) -> tuple[Tensor, Tensor]:
        ctx.of = plan, group, rank
        sends, takes, own = _directions(plan, rank, k.device)
        parts = _swap([_packed(k, v, places) for places in sends], [len(heads) for heads, _ in takes], group)
        first, stop = plan.keys(rank)
        all_k, all_v = (x.new_zeros(*x.shape[:2], stop - first, x.shape[3]) for x in (k, v))
        all_k[:, :, own], all_v[:, :, own] = k, v
        for (heads, positions), part in zip(takes, parts, strict=True):
            all_k[:, heads, positions], all_v[:, heads, positions] = _unpacked(part)
        return all_k, all_v

    @staticmethod
    def backward(ctx: Any, dk: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
        with told(ctx.of[1]):
            return (*_returned(*ctx.of, dk, dv), None, None, None)


def _returned(plan: ExchangePlan, group: Any, rank: int, dk: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of this rank's tokens, from those of all that ranks have read."""
    sends, takes, own = _directions(plan, rank, dk.device)
    parts = _swap([_packed(dk, dv, places) for places in takes], [len(heads) for heads, _ in sends], group)
    totals = [x[:, :, own].to(torch.promote_types(x.dtype, torch.float32), copy=True) for x in (dk, dv)]
    for (heads, positions), part in zip(sends, parts, strict=True):
        for total, received in zip(totals, _unpacked(part), strict=True):
            total[:, heads, positions] += received
    return totals[0].to(dk.dtype), totals[1].to(dv.dtype)


def _packed(k: Tensor, v: Tensor, places: Places) -> Tensor:
    """The tokens that are sent, K and V one behind the other: [tokens, batch, head_dim + v_head_dim]."""
    heads, positions = places
    return torch.cat((k[:, heads, positions], v[:, heads, positions]), -1).transpose(0, 1)


def _unpacked(part: Tensor) -> tuple[Tensor, Tensor]:
    """Of such tokens K and V: [batch, tokens, width]."""
    k, v = part.transpose(0, 1).split((HEAD_DIM, V_HEAD_DIM), -1)
    return k, v


def _swap(parts: list[Tensor], lengths: list[int], group: Any) -> tuple[Tensor, ...]:
    """Send parts[r] to rank r, for all r; returns the parts received, [lengths[r], …] from rank r."""
    sent = torch.cat(parts).contiguous()
    taken = sent.new_empty(sum(lengths), *sent.shape[1:])
    meet(taken, sent, lengths, [len(part) for part in parts], group)
    return taken.split(lengths)


@lru_cache(maxsize=64)
def _directions(plan: ExchangePlan, rank: int, device: torch.device) -> tuple[list[Places], list[Places], slice]:
    """(sent, received, own): for each rank the tokens to send, as indices of this rank's tokens; the tokens received
    from it and this rank's own tokens, as indices of plan.keys(rank)."""
    first, stop = plan.queries(rank)
    least, _ = plan.keys(rank)
    sends = [plan._places(rank, other) for other in range(plan.ranks)]
    takes = [plan._places(other, rank) for other in range(plan.ranks)]
    return (
        [(heads.to(device), (positions - first).to(device)) for heads, positions in sends],
        [(heads.to(device), (positions - least).to(device)) for heads, positions in takes],
        slice(first - least, stop - least),
    )


def _boundaries(rows: int, ranks: int | Sequence[int]) -> tuple[int, ...]:
    if not isinstance(ranks, Sequence | Tensor) or isinstance(ranks, str):
        ranks = whole("ranks", ranks)
        if not 1 <= ranks <= MOST_ENTRIES:
            raise ValueError(f"a context is split over one rank or more, {MOST_ENTRIES:,} at most, not {ranks}")
        share = -(-rows // ranks)
        return tuple(min(rank * share, rows) for rank in range(ranks + 1))
    bounds = tuple(whole(f"ranks[{n}]", bound) for n, bound in enumerate(ranks))
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != rows or list(bounds) != sorted(bounds):
        raise ValueError(f"boundaries rise from 0 to {rows}, the number of blocks; got {list(bounds)}")
    return bounds


def _columns_read(klass: int, rows: int, boundaries: tuple[int, ...]) -> Tensor:
    """bool [ranks, rows]: the columns of other ranks of which a rank's rows keep any token."""
    pointers, _, columns = row_table(klass, rows, rows)
    read = torch.zeros(len(boundaries) - 1, rows, dtype=torch.bool, device="cpu")
    for rank in range(len(boundaries) - 1):
        first, stop = boundaries[rank : rank + 2]
        listed = columns[int(pointers[first]) : int(pointers[stop])].long()
        read[rank, listed[listed < rows]] = True
        read[rank, first:stop] = False
    return read
