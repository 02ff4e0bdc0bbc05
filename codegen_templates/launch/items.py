"""The items of dK and dV: tiles of keys, the rows that read them, and where their sums go. Made once for each length.

A column that one item has whole is written by it. One that several add to, a near item and those of strides or the
parts of a long one, has a slot of float32 for each, and the slots are added in the order in which they are listed here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..kernels.row_map import STRIDES
from ..pattern import BLOCK, CAUSAL, CLASSES, FORM
from ..rules.tables import column_table
from . import slot_lists
from .arrays import Places, kv_heads
from .graphs import tables

SHARE = 4  # an item has at most this part of what a processor has to do: the rest fills up what long ones leave
LEAST_ROWS = 16  # blocks of rows that are worth an item of their own
MOST_SLOTS = 4  # for each column there is; where more were needed, launches add to each other's sums instead
TOGETHER = 1  # KV heads that are worked on at a time: their rows stay in L2
NOWHERE = (1 << 31) // BLOCK - 1  # a column behind all keys
NEAR = 0, 0, 0  # the launch of near items
KEPT = 128  # lengths and layers that are remembered

Stride = tuple[int, int, int, int, int]  # period, residue, distances from and to, the column from which it counts


@dataclass(frozen=True)
class Work:
    """All launches of the kernel: for each its items, and whether there are near and strided ones among them."""

    launches: tuple[tuple[Tensor, bool, bool], ...]
    members: Tensor  # [groups, 2 + 2 * most heads]: KV head, number of heads, of each the head and its class's place
    columns: Tensor  # [.., 4], those that have slots: KV head, column, first slot, how many
    slots: int
    lead: int = 0  # items of the only launch that are taken of one request after the other


@dataclass(frozen=True)
class Group:
    """Heads of a KV head whose rows an item takes together: near ones, or those of one class at one stride."""

    kv_head: int
    heads: tuple[int, ...]
    stride: Stride | None = None
    launch: tuple[int, int, int] = NEAR  # of those that add to each other's sums

    @property
    def words(self) -> tuple[int, int, int, int]:
        """What items say of it: whether it is a stride, the period of its columns, the distances of its rows."""
        return (0, 1, 0, 0) if self.stride is None else (1, self.stride[0], *self.stride[2:4])


@tables(most=KEPT)
def work(
    classes: tuple[int, ...],
    head_offset: int,
    places: Places,
    rows: tuple[int, int],
    columns: tuple[int, int],
    width: int,
    batch: int,
    processors: int,
    in_rounds: bool,
    by_heads: bool,
    span: slot_lists.Span | None,
    device: torch.device,
) -> Work:
    """For these rows and columns of blocks, from and to, in tiles of `width` keys. `span`: the slots of rows, where
    these are listed for each tile, as for the Hopper kernel where the pattern is a table. `by_heads`: whether a
    processor takes one item at a time, and those that lead of one request after the other.

    In rounds there are no slots and no parts: near items are one launch, and each stride's another, which adds to what
    is there. So are packed requests, of which the device alone knows the lengths; `columns` are those of the longest.
    """
    groups = groups_of(classes, head_offset)
    across = torch.arange(max(1, width // BLOCK))  # columns of a tile
    found = [tiles_of(group, classes, rows, columns, len(across), span) for group in groups]
    first, weight = (torch.cat([pair[n] for pair in found]) for n in range(2))
    group = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor([len(pair[0]) for pair in found]))
    limit = max(LEAST_ROWS, SHARE**-1 * batch * float(weight.sum()) / processors)
    parts = (weight / limit).ceil().long().clamp(min=1)
    if in_rounds:
        parts.fill_(1)
    tile = torch.repeat_interleave(torch.arange(len(first)), parts)
    part = torch.arange(len(tile)) - (parts.cumsum(0) - parts)[tile]
    first, weight, group, parts = first[tile], weight[tile] / parts[tile], group[tile], parts[tile]

    words = torch.tensor([group.words for group in groups])[group]  # [items, 4]
    kv_head = torch.tensor([group.kv_head for group in groups])[group]
    j = first[:, None] + across * words[:, 1:2]
    slots, listed = slots_of(kv_head[:, None].expand_as(j), j, columns)
    if in_rounds:
        slots.fill_(-1)
        listed = listed[:0]
    elif int(listed[:, 3].sum()) > MOST_SLOTS * (columns[1] - columns[0]) * (1 + int(kv_head.max())):
        return work(classes, head_offset, places, rows, columns, width, batch, processors, True, by_heads, span, device)

    table = torch.stack([words[:, 0], group, first, words[:, 1], 0 * first, *words[:, 2:].T, part, parts, *slots.T], 1)
    several = BLOCK // min(width, BLOCK)  # tiles of a column
    enough = float(weight.max()) * processors / batch if len(weight) else 0.0
    order, lead = order_of(weight, kv_head // TOGETHER, enough if by_heads and not in_rounds else float("inf"))
    launches = []
    for launch in sorted({group.launch for group in groups}) if in_rounds else [None]:
        chosen = torch.tensor([launch in (None, own.launch) for own in groups])[group]
        items = table[order[chosen[order]]].repeat_interleave(several, 0)
        items[:, 4] = torch.arange(several).repeat(len(items) // several)
        # a launch without items has one that is about no key: what is compiled does not depend on lengths
        items = items if len(items) else torch.tensor([[0, 0, NOWHERE, *[0] * (table.shape[1] - 3)]])
        is_near = not in_rounds or launch == NEAR
        launches.append((items.int().to(device), is_near, bool(STRIDES) and not (in_rounds and is_near)))
    total = int(listed[:, 3].sum())
    members = members_of(groups, classes, places).to(device)
    return Work(tuple(launches), members, listed.int().to(device), total, lead * several)


@cache
def widest() -> int:
    """The longest period of a stride, in blocks."""
    return max([1, *(stride[0] for strides in STRIDES for stride in strides if stride)])


def groups_of(classes: tuple[int, ...], head_offset: int) -> list[Group]:
    """The near groups of all KV heads, then those of each stride. Within a launch no two of a KV head and stride have
    the same columns: they have one period and different residues."""
    heads = kv_heads(len(classes), head_offset)
    groups = [Group(kv, tuple(h for h, own in enumerate(heads) if own == kv)) for kv in range(heads[-1] + 1)]
    for number, strides in enumerate(STRIDES, 1):
        alike: dict[tuple[int, int], list[int]] = {}
        for head, key in enumerate(zip(heads, classes, strict=True)):
            alike.setdefault(key, []).append(head)
        same: Counter[tuple[int, Stride]] = Counter()
        for (kv_head, klass), own in alike.items():
            if stride := strides[klass]:
                launch = number, stride[0], same[kv_head, stride[:2]]
                groups.append(Group(kv_head, tuple(own), stride, launch))
                same[kv_head, stride[:2]] += 1
    return groups


def tiles_of(
    group: Group,
    classes: tuple[int, ...],
    rows: tuple[int, int],
    columns: tuple[int, int],
    across: int,
    span: slot_lists.Span | None,
) -> tuple[Tensor, Tensor]:
    """The first columns of a group's tiles, `across` columns each, and the most blocks of rows that one of them has."""
    if span is not None:
        j = torch.arange(*columns)[::across]
        each = torch.stack([slot_lists.weights(classes[head], span, columns) for head in group.heads])
        return j, each.sum(0)[: len(j)] * slot_lists.ROWS / BLOCK
    if group.stride is None:
        j = torch.arange(*columns)
        weight = sum((near_rows(classes[head], j, rows) for head in group.heads), torch.zeros(len(j)))
    else:
        every, residue, low, high, sink = group.stride
        start = max(columns[0], sink)
        start += (residue - start) % every
        j = torch.arange(start, max(columns[1], start), every)
        weight = within(j, low, high, rows) * len(group.heads)
    weight = torch.nn.functional.pad(weight, (0, -len(j) % across)).view(-1, across)
    return j[::across], weight.amax(1) if len(j) else weight[:, 0]


def near_rows(klass: int, j: Tensor, rows: tuple[int, int]) -> Tensor:
    """About how many blocks of rows a near item has of each column. float32 [columns]"""
    if FORM == "table":
        stop = max(int(j[-1]) + 1, 0) if len(j) else 0
        pointers = column_table(klass, max(rows[1], 1), stop, "cpu", 0 if CAUSAL else min(rows[0], 0))[0]
        return pointers.diff()[j].float()
    sink, bands = CLASSES[klass]["closed"]
    total = within(j, None, None, rows) * (j < max(sink, -(-CLASSES[klass]["sink"] // BLOCK)))
    for low, high, every, kept, anchor in bands:
        if every == 1 or anchor != "j":
            total += within(j, low, high, rows) * (len(kept) / every)
    if chunk := CLASSES[klass]["chunk"]:
        total += (((j // chunk + 1) * chunk).clamp(max=rows[1]) - (j if CAUSAL else j // chunk * chunk)).clamp(min=0)
    if CLASSES[klass]["window"]:
        before, after = CLASSES[klass]["window"]
        total += within(j, (1 - after) // BLOCK, -(-(before - 1) // BLOCK) + 1, rows)
    return total


def within(j: Tensor, low: int | None, high: int | None, rows: tuple[int, int]) -> Tensor:
    """How many rows lie at the distances low <= d < high from each column. float32 [columns]"""
    first = j if CAUSAL else torch.full_like(j, rows[0])
    first = first.clamp(min=rows[0]) if low is None else torch.maximum(first, j + low).clamp(min=rows[0])
    stop = torch.full_like(j, rows[1]) if high is None else (j + high).clamp(max=rows[1])
    return (stop - first).clamp(min=0).float()


def order_of(weight: Tensor, head: Tensor, enough: float) -> tuple[Tensor, int]:
    """The order in which items are taken: of one head after the other, of each the longest first; but the last heads,
    which have `enough` to do for all programs to end alike, are one. And how many items are before these."""
    own = torch.bincount(head, weights=weight)
    is_last = (own.sum() - own.cumsum(0) < enough)[head]
    return sorted_by(-weight, torch.where(is_last, len(own), head)), int((~is_last).sum())


def sorted_by(*keys: Tensor) -> Tensor:
    """The order by the last key; where that is equal, by the one before it; at last, that which is."""
    order = torch.arange(len(keys[0]))
    for key in keys:
        order = order[torch.argsort(key[order], stable=True)]
    return order


def slots_of(kv_head: Tensor, j: Tensor, columns: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The slot of each item's columns, -1 where it alone adds to one, and the columns that have slots [.., 4]."""
    present = j < columns[1]
    key = (kv_head * (columns[1] - columns[0]) + j - columns[0])[present]
    count = torch.bincount(key) if len(key) else key
    several = torch.where(count > 1, count, 0)
    start = several.cumsum(0) - several
    order = torch.sort(key, stable=True).indices
    nth = torch.empty_like(key)
    nth[order] = torch.arange(len(key)) - (count.cumsum(0) - count)[key[order]]
    slots = torch.full_like(j, -1)
    slots[present] = torch.where(several[key] > 0, start[key] + nth, -1)
    listed = several.nonzero()[:, 0]
    span = columns[1] - columns[0]
    found = [listed // span, listed % span + columns[0], start[listed], several[listed]]
    return slots, torch.stack(found, 1)


def members_of(groups: list[Group], classes: tuple[int, ...], places: Places) -> Tensor:
    """Of each group the KV head, the number of its heads, and of each the head and the place of its class."""
    place, most = dict(places), max(len(group.heads) for group in groups)
    rows = [[g.kv_head, len(g.heads), *(n for h in g.heads for n in (h, place[classes[h]]))] for g in groups]
    return torch.tensor([row + [0] * (2 + 2 * most - len(row)) for row in rows], dtype=torch.int32)
