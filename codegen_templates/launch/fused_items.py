"""The items of the fused backward for Hopper: what is loaded for each, and in which order they add to dQ.

An item is a tile of 128 keys and the slots of 64 rows that keep any of them, of all query heads of a KV head that keep
it in the same way. All of it is listed here. Long items are cut between heads, and what is still long at rows that are
multiples of one number: all items of a head that are cut are cut at the same rows, and walk them downwards, so that
they add to dQ one behind the other. Items of several heads that were cut between rows would wait for one another at
each of their heads.

Items are taken in the order in which they stand here. How many of those before it add to the same slot of the same
head is a slot's rank: the item's turn to add to dQ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.row_map import CLASS_INTS
from ..pattern import BLOCK, FORM
from ..rules.item_slots import KEYS, Ends, item_slots
from . import arrays, items
from .graphs import tables
from .requests import Requests

SHARE = 16  # an item has at most this part of what a processor has to do
LEAST_SLOTS = 16  # that are worth an item of their own
TOGETHER = 4  # query heads that are worked on at a time, of two KV heads at least: their dQ stays in L2 meanwhile
MOST_ENTRIES = 1 << 24  # slots of all items and heads: a rank of each is kept, and more while they are made
ACROSS = max(1, KEYS // BLOCK)  # columns of a tile
FIELDS = 10  # of an item, before its slots in `parts`
KEPT = 16  # lengths and layers that are remembered


@dataclass(frozen=True)
class Work:
    """What a launch reads, int32: see `kernels/hopper/produce_fused.py`."""

    items: Tensor  # [items, FIELDS + columns of a tile]
    members: Tensor  # [.., 5]: of an item's heads
    lists: Tensor  # [.., 3]: of each slot its number, and what either consumer keeps of it
    ranks: Tensor  # of each slot of each member
    pattern: Tensor  # what rules of tokens read
    parts: items.Work  # columns that several items add to, and how many parts they have
    adds: Tensor  # [heads, slots of rows]: how many items add to each, on the CPU


def ends_of(requests: Requests) -> Ends:
    return requests.q_start, requests.q_start + requests.q_len, requests.kv_start + requests.kv_len


def work_of(requests: Requests, heads: arrays.Heads, processors: int, device: torch.device) -> Work | None:
    """For requests of these lengths; None where there would be more slots, or parts of columns, than are kept."""
    columns = requests.kv_start // BLOCK, requests.columns
    return work(arrays.present(*heads), heads[1], ends_of(requests), columns, requests.count, processors, device)[0]


def _entries(
    groups: list[items.Group], classes: tuple[int, ...], ends: Ends, columns: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of all slots of all groups' tiles and heads: group, tile, head, number, place in `lists`, which of the group's
    heads it is [entries, 6]; `lists`; and of all tiles: group, first column, which pieces are kept [tiles, 3]."""
    known: dict[tuple[int, items.Stride | None], tuple[Tensor, ...]] = {}
    entries, lists, tiles, taken = [], [], [], 0
    for number, group in enumerate(groups):
        first = first_columns(group, columns)
        present = torch.zeros(len(first), dtype=torch.int64)
        for member, head in enumerate(group.heads):
            key = classes[head], group.stride
            if key not in known:
                count, slots, words, kept = item_slots(*key, first, group.words[1], ends)
                lists.append(torch.cat([slots[:, None], words], 1))
                place = torch.arange(len(slots)) + taken
                known[key] = torch.arange(len(first)).repeat_interleave(count), slots.long(), place, kept
                taken += len(slots)
            tile, slots, place, kept = known[key]
            group_of, head_of, member_of = (torch.full_like(tile, n) for n in (number, head, member))
            entries.append(torch.stack([group_of, tile, head_of, slots, place, member_of], 1))
            present |= kept
        tiles.append(torch.stack([0 * first + number, first, present], 1))
    return torch.cat(entries), torch.cat(lists), torch.cat(tiles)


def first_columns(group: items.Group, columns: tuple[int, int]) -> Tensor:
    """The first columns of a group's tiles."""
    if group.stride is None:
        return torch.arange(*columns)[::ACROSS]
    every, residue, _, _, sink = group.stride
    start = max(columns[0], sink)
    start += (residue - start) % every
    return torch.arange(start, max(columns[1], start), every)[::ACROSS]


@tables(most=KEPT)
def work(
    classes: tuple[int, ...],
    head_offset: int,
    ends: Ends,
    columns: tuple[int, int],
    batch: int,
    processors: int,
    device: torch.device,
) -> tuple[Work | None]:
    """`work_of`, kept: in a tuple, since what is None is made again."""
    groups = items.groups_of(classes, head_offset)
    entries, lists, tiles = _entries(groups, classes, ends, columns)
    if len(entries) >= MOST_ENTRIES:
        return (None,)
    limit = max(LEAST_SLOTS, len(entries) * batch // (SHARE * processors))
    before = torch.tensor([0, *(len(first_columns(group, columns)) for group in groups)]).cumsum(0)
    tile = before[entries[:, 0]] + entries[:, 1]  # among all of them
    weight = torch.bincount(tile, minlength=len(tiles))
    share, part = _parts(entries, tile, limit, groups)

    # an item for each tile and part, and one for tiles that nobody keeps
    empty = (weight == 0).nonzero()[:, 0]
    key = torch.stack([torch.cat([x, none]) for x, none in ((tile, empty), (share, 0 * empty), (part, 0 * empty))], 1)
    found, own = key.unique(dim=0, return_inverse=True)
    own = own[: len(tile)]  # the item of each entry
    count = torch.bincount(own, minlength=len(found))
    group, first, present = tiles[found[:, 0]].unbind(1)
    order = order_of(group, first, found[:, 1], found[:, 2], groups)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))  # of each item among those that are taken
    group, first, present, count, own = group[order], first[order], present[order], count[order], place[own]

    # entries by item, head and slot, the last first; ranks by the order of items
    by_item = torch.argsort(own * len(classes) + entries[:, 2], stable=True)
    own, head, slot, listed = own[by_item], *entries[by_item][:, 2:5].unbind(1)
    rows = -(-ends[1] // 64) - ends[0] // 64
    ranks, adds = nth(head * rows + slot - ends[0] // 64, len(classes) * rows)

    # members: runs of entries of one item and head
    is_first = torch.ones(len(own), dtype=torch.bool)
    is_first[1:] = (own[1:] != own[:-1]) | (head[1:] != head[:-1])
    start = is_first.nonzero()[:, 0]
    size = torch.diff(start, append=torch.tensor([len(own)]))
    pattern, places = pattern_of(device)
    class_place = torch.tensor([dict(places)[klass] for klass in classes])
    members = torch.stack([head[start], class_place[head[start]], listed[start], start, size], 1)
    of_item = torch.bincount(own[start], minlength=len(group))

    words = torch.tensor([own.words for own in groups])[group]
    kv_head = torch.tensor([own.kv_head for own in groups])[group]
    j = first[:, None] + torch.arange(ACROSS) * words[:, 1:2]
    slots, summed = items.slots_of(kv_head[:, None].expand_as(j), j, columns)
    total = int(summed[:, 3].sum())
    if total > items.MOST_SLOTS * (columns[1] - columns[0]) * (1 + int(kv_head.max())):
        return (None,)
    zero = 0 * group
    fields = [kv_head, of_item, of_item.cumsum(0) - of_item, first, words[:, 1], zero, present, count, zero, zero]
    table = torch.stack([*fields, *slots.T], 1)
    table, members, lists, ranks = (x.int().to(device) for x in (table, members, lists, ranks))
    columns_of = items.Work((), members, summed.int().to(device), total)
    return (Work(table, members, lists, ranks, pattern, columns_of, adds.view(len(classes), rows)),)


def _parts(entries: Tensor, tile: Tensor, limit: int, groups: list[items.Group]) -> tuple[Tensor, Tensor]:
    """Which part of its tile each entry is of: by heads, and by rows, of which the last are the first part. A tile that
    has more slots than `limit` is cut between heads, and where a head has more, between rows."""
    _, _, _, slot, _, member = entries.unbind(1)
    heads = torch.tensor([len(group.heads) for group in groups])[entries[:, 0]]
    of_head = -(-torch.bincount(tile)[tile] // heads)
    shares = -(-heads // (limit // of_head).clamp(min=1))
    return member // -(-heads // shares), torch.where(of_head > limit, -(slot // limit), 0)


def order_of(group: Tensor, first: Tensor, share: Tensor, part: Tensor, groups: list[items.Group]) -> Tensor:
    """The order in which items are taken: a few heads after the other, of these near items first, then those of the
    first heads of each, of these those of the last rows, at last the first columns."""
    several = max(2, TOGETHER // max(len(own.heads) for own in groups))
    together = torch.tensor([own.kv_head // several for own in groups])[group]
    is_stride = torch.tensor([own.stride is not None for own in groups])[group]
    return items.sorted_by(group, first, part, share, is_stride.int(), together)


def nth(keys: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """How many equal keys stand before each, and how many there are of each of 0..most-1."""
    count = torch.bincount(keys, minlength=most)
    order = torch.argsort(keys, stable=True)
    found = torch.empty_like(keys)
    found[order] = torch.arange(len(keys)) - (count.cumsum(0) - count)[keys[order]]
    return found, count


def pattern_of(device: torch.device) -> tuple[Tensor, arrays.Places]:
    """The integers of classes, as rules of tokens read them, and where those of each begin."""
    if FORM == "closed":
        return arrays.class_ints(True, device)
    return _records(device)


@tables()
def _records(device: torch.device) -> tuple[Tensor, arrays.Places]:
    """Likewise, each class's behind the three numbers that a record of a table has first."""
    rows = [[0, 0, 0, *row] for row in CLASS_INTS]
    numbers = torch.tensor(rows, dtype=torch.int32, device=device).view(-1)
    return numbers, tuple((klass, klass * len(row)) for klass, row in enumerate(rows))
