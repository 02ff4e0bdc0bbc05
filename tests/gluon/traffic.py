"""What the items of dK and dV bring from memory: loads of the Hopper kernel, simulated, through a cache of tiles."""

from __future__ import annotations

import heapq
from typing import Any

import torch

from tests.gluon.turns import FIXED, brought

TILE = 64 * 128 * 2 * 2  # bytes: 64 rows of Q and dO, or of K and V, of 128 numbers
Slot = tuple[int, int]  # head, number


def slots_of(of: Any, work: Any, classes: tuple[int, ...], tokens: int) -> list[list[Slot]]:
    """Of each item of a closed form in blocks of 64, the slots of rows that it loads, in their order."""
    items, rules = of.part("launch.items"), of.part("rules.item_slots")
    groups, known = items.groups_of(classes, 0), {}
    [(table, _, _)] = work.launches
    found = []
    for _, group, first, every, _, _, _, part, parts, *_ in table.tolist():
        own, slots = groups[group], ([], [])
        for head in own.heads:
            key = classes[head], own.stride, first
            if key not in known:
                _, numbers, words, _ = rules.item_slots(*key[:2], torch.tensor([first]), every, (0, tokens, tokens))
                is_far = (words == 1).all(1)  # each consumer keeps the block, and nothing cuts it
                known[key] = [numbers[kind].tolist() for kind in (~is_far, is_far)]
            for kind, listed in zip(slots, known[key], strict=True):  # the last first
                low, high = (len(listed) * (parts - n) // parts for n in (part + 1, part))
                kind += [(head, number) for number in listed[low:high]]
        found.append(slots[0] + slots[1])
    return found


def simulated(slots: list[list[Slot]], lead: int, batch: int, programs: int, room: int) -> tuple[float, float]:
    """(busy, bytes): the share of time in which programs have an item, where a slot takes 1, and what they load of a
    memory behind a cache that holds `room` tiles, the last used ones."""
    order = [(n, request) for request in range(batch) for n in range(lead)]
    order += [(n, request) for n in range(lead, len(slots)) for request in range(batch)]
    due, busy, loads = [0.0] * programs, 0.0, []
    for n, request in order:
        time = heapq.heappop(due)
        loads += [(time, (request, n, half)) for half in range(2 if slots[n] else 0)]
        loads += [(time + FIXED + at, (request, *slot)) for at, slot in enumerate(slots[n])]
        taken = FIXED + len(slots[n])
        busy += taken
        heapq.heappush(due, time + taken)
    loads.sort(key=lambda load: load[0])
    return busy / (programs * max(due)), TILE * brought((tile for _, tile in loads), room)
