"""How long programs of the fused backward wait for their turns to add to dQ: its items, simulated."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

FIXED = 1.5  # slots that an item's keys and sums take
AHEAD = 1  # tiles that wait to be added while a program goes on


def items_of(work: Any, batch: int) -> Iterator[list[tuple[tuple[int, ...], int]]]:
    """Of each item, in the order in which they are taken, its tiles of dQ and the turn in each."""
    items, members, lists, ranks = (x.tolist() for x in (work.items, work.members, work.lists, work.ranks))
    for request in range(batch):
        for item in items:
            yield [
                ((request, head, lists[listed + n][0]), ranks[first + n])
                for head, _, listed, first, count in members[item[2] : item[2] + item[1]]
                for n in range(count)
            ]


def simulated(work: Any, batch: int, programs: int, in_cache: int) -> tuple[float, float]:
    """(busy, misses): the share of time in which programs do not wait, where a slot takes 1, and how often a tile of dQ
    is brought to a cache that holds `in_cache` of them, the last used ones."""
    items = list(items_of(work, batch))
    added: dict[tuple[int, ...], list[float]] = {}
    waiting: dict[tuple[tuple[int, ...], int], tuple[float, int]] = {}
    events: list[tuple[float, tuple[int, ...]]] = []
    state: list[Any] = [None] * programs  # of each program: its item, the place in it, when its tiles were added
    due = [(0.0, program) for program in range(programs)]
    taken, busy, end = 0, 0.0, 0.0
    while due:
        time, program = heapq.heappop(due)
        end = max(end, time)
        if state[program] is None:
            if taken < len(items):
                state[program] = [items[taken], 0, []]
                busy += FIXED + len(items[taken])
                heapq.heappush(due, (time + FIXED, program))
                taken += 1
            continue
        item, place, own = state[program]
        if place == len(item):
            state[program] = None
            heapq.heappush(due, (time, program))
            continue
        tile, turn = item[place]
        before = added.setdefault(tile, [])
        if len(before) < turn:
            waiting[tile, turn] = time, program
            continue
        assert len(before) == turn, "a turn that was taken"
        at = max([time + 1, *before[-1:], *own[-1:]])
        before.append(at)
        own.append(at)
        events.append((at, tile))
        state[program][1] += 1
        heapq.heappush(due, (max(time + 1, own[-1 - AHEAD]) if len(own) > AHEAD else time + 1, program))
        if (found := waiting.pop((tile, turn + 1), None)) is not None:
            heapq.heappush(due, (max(found[0], at - 1), found[1]))
    assert not waiting and taken == len(items), "programs that wait for ever"
    misses = brought((tile for _, tile in sorted(events)), in_cache)
    return busy / (programs * end), misses / len(added)


def brought(loads: Iterable[Hashable], room: int) -> int:
    """How many of these are not among the `room` different ones before them."""
    cache: OrderedDict[Hashable, None] = OrderedDict()
    misses = 0
    for tile in loads:
        misses += tile not in cache
        cache[tile] = None
        cache.move_to_end(tile)
        if len(cache) > room:
            cache.popitem(last=False)
    return misses
