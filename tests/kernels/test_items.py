"""The items of dK and dV: every row of every column in one of them, long columns in parts, sums in a fixed order."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.kernels.held import GROUPS, HEAD, Held, check_backward, gradients, held, quick, tensors, weights

CPU = torch.device("cpu")
LARGE = """pattern: 1
name: large
heads: {heads}
kv_heads: {kv_heads}
head_dim: 128
block: 64
promises: {{}}
shards: [{{heads: all, local: 8, stride: 16, offset: {offset}}}]
"""
H200 = 132  # processors
Change = Callable[[Any], Any]


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Any]]]:
    """A function that has a package split whatever it can, as for many processors, and returns a list of the work that
    its launches will take; `change` is done to it before."""
    caches = []

    def apply(of: Held, change: Change = lambda work: work, most_slots: int = 1000) -> list[Any]:
        items, taken = of.part("launch.items"), []
        make = items.work
        caches.append(make)
        make.cache_clear()
        monkeypatch.setattr(of.part("launch.backward"), "processors", lambda _: 64)
        monkeypatch.setattr(items, "LEAST_ROWS", 1)
        monkeypatch.setattr(items, "MOST_SLOTS", most_slots)
        monkeypatch.setattr(items, "work", lambda *about: taken.append(change(make(*about))) or taken[-1])
        return taken

    yield apply
    for cache in caches:
        cache.cache_clear()


LENGTHS = {
    "strided": (41, 75),
    "several": (50, 90),
    "wide": (75, 75),
    "tokens": (41, 75),
    "some_dense": (75, 75),
    "dilated": (41, 75),
    "both_ways": (41, 75),
    "mixed": (41, 75),
    "both_ways_drawn": (41, 75),
}


@pytest.mark.interpret
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("name", quick(LENGTHS, "several", "some_dense", "mixed"))
def test_parts_add_up_to_the_gradient_of_dense_attention(name: str, split: Any) -> None:
    of = held(name)
    taken = split(of)
    check_backward(of, tensors(of.pattern, *LENGTHS[name], batch=2 if name == "some_dense" else 1))
    [work] = taken
    assert max(int(table[:, 8].max()) for table, _, _ in work.launches) > 1
    assert work.slots
    assert len(work.launches) == 1


@pytest.mark.interpret
@pytest.mark.usefixtures("poisoned")
def test_tiles_of_half_a_column_share_its_slots(split: Any) -> None:
    of = held(HEAD.replace("block: 16", "block: 128") + "shards: [{heads: all, local: 1, stride: 2}]")
    taken = split(of)
    check_backward(of, tensors(of.pattern, 150, 300))
    assert taken[0].slots
    assert int(taken[0].launches[0][0][:, 4].max()) == 1


@pytest.mark.interpret
@pytest.mark.usefixtures("poisoned")
def test_where_there_were_too_many_slots_launches_add_to_each_other(split: Any) -> None:
    of = held("several")
    taken = split(of, most_slots=0)
    check_backward(of, tensors(of.pattern, 20, 75, dtype=torch.float16))
    assert len(taken[-1].launches) > 2
    assert not taken[-1].slots


@pytest.mark.interpret
@pytest.mark.usefixtures("poisoned")
def test_two_runs_in_parts_give_equal_bits(split: Any) -> None:
    of = held("strided")
    taken = split(of)
    inputs = tensors(of.pattern, 41, 75)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return of.package.attention(q, k, v, return_lse=True)

    once, again = (gradients(attend, inputs, dout, dlse) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(once, again, strict=True))
    assert taken[0].slots


def one_less(work: Any) -> Any:
    """Its last item left out."""
    [(table, *kinds)] = work.launches
    return replace(work, launches=((table[:-1], *kinds),))


def one_slot_less(work: Any) -> Any:
    """The last of each column's slots left out of the sum."""
    return replace(work, columns=work.columns - torch.tensor([0, 0, 0, 1], dtype=torch.int32))


def one_part_twice(work: Any) -> Any:
    """Every second part the one that the first is."""
    [(table, *kinds)] = work.launches
    table = table.clone()
    table[:, 7] = 0
    return replace(work, launches=((table, *kinds),))


@pytest.mark.interpret
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("fault", [one_less, one_slot_less, one_part_twice])
def test_a_fault_in_the_table_is_found(fault: Change, split: Any) -> None:
    of = held("strided")
    split(of, fault)
    with pytest.raises(AssertionError, match="dk"):
        check_backward(of, tensors(of.pattern, 41, 75))


@pytest.mark.parametrize("name", ["strided", "several", "wide", "starved", "mixed", "both_ways"])
@pytest.mark.parametrize(("width", "processors"), [(16, 1), (16, 64), (64, 64), (8, 64)])
def test_every_row_of_every_column_is_in_one_item(name: str, width: int, processors: int) -> None:
    """By enumeration: of every group and column all parts are there once, and slots are apart and as listed."""
    of = held(name)
    classes, columns = tuple(of.part("pattern").CLASS_OF[0]), (2, 23)
    items = of.part("launch.items")
    work = made(of, (1, 20), columns, width, processors)
    [(table, has_near, has_strides)] = work.launches
    assert has_near
    assert has_strides == bool(of.part("kernels.row_map").STRIDES)
    block = of.pattern.block
    found, taken = defaultdict(list), defaultdict(list)
    for item in table.tolist():
        _, group, first, every, tile, _, _, part, parts, *slots = item
        kv_head = int(work.members[group, 0])
        for n, slot in enumerate(slots):
            column = first + n * every
            if column < columns[1]:
                found[group, column, tile].append((part, parts))
                taken[kv_head, column, tile].append(slot)
            else:
                assert slot == -1
    groups = items.groups_of(classes, 0)
    expected = {
        (number, column, tile)
        for number, group in enumerate(groups)
        for column in range(*columns)
        for tile in range(max(1, block // width))
        if group.stride is None or (column >= group.stride[4] and column % group.stride[0] == group.stride[1])
    }
    assert set(found) == expected
    for parts in found.values():
        assert sorted(parts) == [(n, len(parts)) for n in range(len(parts))]
    listed = {(kv, j): range(first, first + count) for kv, j, first, count in work.columns.tolist()}
    assert sorted(n for slots in listed.values() for n in slots) == list(range(work.slots))
    for (kv_head, column, _), slots in taken.items():
        alone = len(slots) == 1
        assert sorted(slots) == ([-1] if alone else list(listed[kv_head, column]))


def made(of: Held, rows: tuple[int, int], columns: tuple[int, int], width: int, processors: int, batch: int = 1) -> Any:
    """The work of the package's first layer."""
    items, arrays = of.part("launch.items"), of.part("launch.arrays")
    classes = arrays.present(0, 0, of.pattern.heads)
    _, _, places = arrays.column_arrays(classes, rows, columns[1], CPU)
    return items.work.__wrapped__(classes, 0, places, rows, columns, width, batch, processors, False, False, None, CPU)


@pytest.mark.parametrize(("heads", "kv_heads", "offset"), [(16, 16, "h"), (32, 8, "g"), (32, 8, "h")])
def test_the_last_program_ends_soon_after_the_first(heads: int, kv_heads: int, offset: str) -> None:
    """By simulation, at 16k tokens: items in order, each to the place that is free first, two places a processor. In
    tiles of one column, half of the columns of a stride would keep a place longer than all others work."""
    of = held(LARGE.format(heads=heads, kv_heads=kv_heads, offset=offset))
    work = made(of, (0, 256), (0, 256), 64, H200)
    [(table, _, _)] = work.launches
    places = [0.0] * (2 * H200)
    for is_stride, group, first, _every, _tile, low, _, _, parts, _ in table.tolist():
        rows = (256 - first - low) if is_stride else min(8, 256 - first)
        end = heapq.heappop(places) + int(work.members[group, 1]) * rows / parts
        heapq.heappush(places, end)
    assert max(places) <= 1.05 * sum(places) / len(places)
    assert work.slots <= 4 * kv_heads * 256


def test_tables_are_remembered_and_forgotten() -> None:
    of = held(GROUPS + "shards: [{heads: all, local: 1, stride: 3}]")
    items, arrays = of.part("launch.items"), of.part("launch.arrays")
    classes = arrays.present(0, 0, 4)
    _, _, places = arrays.column_arrays(classes, (0, 9), 9, CPU)
    about = classes, 0, places, (0, 9), (0, 9), 16, 1, 64, False, False, None, CPU
    assert items.work(*about) is items.work(*about)
    for n in range(2 * items.KEPT):
        items.work(*about[:3], (0, 10 + n), *about[4:])
    assert len(items.work) == items.KEPT
