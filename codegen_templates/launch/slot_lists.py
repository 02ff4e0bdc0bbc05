"""What dK and dV for Hopper read of a table: the slots of rows of each tile of keys, and what they keep."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels import row_map
from ..pattern import BLOCK, CAUSAL
from ..rules.row_slots import KEYS, ROWS, WHOLE, row_slots
from ..rules.tables import room
from .arrays import Places
from .graphs import tables
from .requests import Requests

Span = tuple[int, int, int, int]  # slots: the first, the first and the one behind the last that are whole, the end
MOST = 16  # lengths whose lists are remembered
MOST_NUMBERS = 1 << 31  # of all lists: they are counted in 32 bits


def span_of(requests: Requests) -> Span:
    """The slots of the queries; where the device alone knows their lengths, all that there may be."""
    if requests.are_packed:
        least, stop = _least(-requests.q_len // ROWS), room(-(-requests.kv_len // ROWS))
        return least, least, stop, stop
    start, stop = requests.q_start, requests.q_start + requests.q_len
    return start // ROWS, -(-start // ROWS), stop // ROWS, -(-stop // ROWS)


def are_counted(classes: tuple[int, ...], span: Span, columns: tuple[int, int]) -> bool:
    """Whether lists of so many slots and tiles, however dense they are, have no more numbers than there may be."""
    return 3 * len(set(classes)) * (span[3] - span[0]) * _tiles(columns) < MOST_NUMBERS


def _least(first: int) -> int:
    """The first slot that is looked at: rows before the first key keep nothing where later keys are not kept."""
    return 0 if CAUSAL else -room(-first)


@tables(most=MOST)
def slot_lists(
    classes: tuple[int, ...], span: Span, columns: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor, Places]:
    """The records of every tile of keys of every class, all lists, and where a class's records begin, all int32.

    `columns`, from and to, are those of blocks. A record says where the tile's list begins, how many of its slots are
    edge ones, how many there are, and then the integers of its class. A list has the numbers of the slots, edge ones
    first, each kind sorted; then what the first consumer keeps of each, then the second.
    """
    records, lists, places, taken = [], [], [], 0
    tiles = _tiles(columns)
    for n, klass in enumerate(sorted(set(classes))):
        count, n_edge, slots, words = _listed(klass, span, columns)
        before = count.cumsum(0) - count
        place = torch.arange(len(slots), device="cpu") + 2 * before.repeat_interleave(count)
        own = torch.empty(3 * len(slots), dtype=torch.int32, device="cpu")
        for part, numbers in enumerate((slots, words[:, 0], words[:, 1])):
            own[place + part * count.repeat_interleave(count)] = numbers
        same = [torch.full_like(count, number) for number in row_map.CLASS_INTS[klass]]
        records.append(torch.stack([3 * before + taken, n_edge, count, *same], 1))
        lists.append(own)
        places.append((klass, n * tiles * (3 + len(same))))
        taken += len(own)
    return torch.cat(records).int().to(device), torch.cat(lists).to(device), tuple(places)


def weights(klass: int, span: Span, columns: tuple[int, int]) -> Tensor:
    """How many slots each tile of keys has, half a one for each consumer that keeps some of it. float32 [tiles]"""
    count, _, _, words = _listed(klass, span, columns)
    tile = _numbers(count)
    return torch.bincount(tile, (words != 0).sum(1).float() / 2, minlength=len(count)).float()


def _tiles(columns: tuple[int, int]) -> int:
    """Of the columns, their number rounded up as `room` does."""
    return room(-(-(columns[1] - columns[0]) * BLOCK // KEYS))


def _numbers(count: Tensor) -> Tensor:
    """For each entry the number of its tile, where tiles have so many."""
    return torch.arange(len(count), device="cpu").repeat_interleave(count)


def _listed(klass: int, span: Span, columns: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each tile of keys how many slots it has and how many of them are edge ones, int64; its slots and their words,
    as `slot_lists` has them."""
    first, whole_from, whole_to, stop = span
    tiles = _tiles(columns)
    pointers, slots, words = row_slots(klass, _least(first), stop, columns[0] * BLOCK, tiles)
    slots, words = slots[: pointers[tiles]], words[: pointers[tiles]]
    tile = _numbers(pointers[: tiles + 1].diff())
    is_there = (slots >= first) & (slots < stop)
    tile, slots, words = tile[is_there], slots[is_there], words[is_there]
    is_far = (words == WHOLE).all(1) & (slots >= whole_from) & (slots < whole_to)
    order = torch.sort(2 * tile + is_far, stable=True).indices
    count, far = (torch.bincount(x, minlength=tiles) for x in (tile, tile[is_far]))
    return count, count - far, slots[order], words[order]
