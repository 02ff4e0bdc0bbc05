"""Tables for tiles of rows against the definition: the columns that they list, which rows keep each, in what order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patterncc import reference
from tests.harness import Made, made
from tests.kernels.held import HEAD, TABLE

BITS = 12
TILES = ((16, 8, 16), (16, 12, 16), (32, 6, 32), (128, 2, 64), (128, 3, 64))  # block; pieces and rows of each
NAMES = ("globals", "drawn", "masked", "mixed", "both_ways_chunks", "both_ways_masked")
HAS_TOKENS = ("masked", "mixed", "both_ways_chunks", "both_ways_masked")


def of_block(name: str, block: int) -> Made:
    return made(TABLE[name].replace("block: 16", f"block: {block}"))


def entries(table: Any, tile: int) -> tuple[int, list[tuple[int, int]]]:
    """How many are whole, and (column, bits) of each."""
    pointers, whole, listed = table
    own = listed[int(pointers[tile]) : int(pointers[tile + 1])].tolist()
    return int(whole[tile]), [(entry >> BITS, entry & (1 << BITS) - 1) for entry in own]


@pytest.mark.parametrize("sizes", TILES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_tile_lists_what_its_rows_keep(name: str, sizes: tuple[int, int, int]) -> None:
    block, pieces, piece = sizes
    of, length = of_block(name, block), 5 * 192
    tables, pattern = of.part("rules.tables"), of.part("pattern")
    for head, klass in enumerate(pattern.CLASS_OF[0]):
        mask = reference.dense_mask(of.pattern, 0, length)[head]
        t, u = torch.arange(length)[:, None], torch.arange(length)[None]
        free = mask | (u > t) if pattern.CAUSAL else mask  # what is no reason to say that a block is cut
        table = tables.tile_table(klass, pieces, piece, length // (pieces * piece), -(-length // block))
        for tile in range(length // (pieces * piece)):
            whole, listed = entries(table, tile)
            rows = [slice(n, n + piece) for n in range(tile * pieces * piece, (tile + 1) * pieces * piece, piece)]
            every = slice(rows[0].start, rows[-1].stop)
            wanted = sorted({int(j) // block for j in mask[every].any(0).nonzero()})
            present = [(j, bits) for j, bits in listed if j * block < length]
            if name in HAS_TOKENS and block > piece:  # what a row of blocks keeps a part of may be another piece's
                assert {j for j, _ in present} >= set(wanted)
            else:
                assert sorted(j for j, _ in present) == wanted
            for place, (j, bits) in enumerate(present):
                keys = slice(j * block, (j + 1) * block)
                by_rows = [bool(free[own, keys].all() and mask[own, keys].any()) for own in rows]
                told = [bool(bits >> n & 1) for n in range(pieces)]
                if name in HAS_TOKENS:  # rules of tokens may keep a block whole that the table calls cut
                    assert all(true or not said for said, true in zip(told, by_rows, strict=True))
                else:
                    assert told == by_rows
                if place < whole:
                    assert all(told) and (not pattern.CAUSAL or keys.stop <= every.start)
            columns = [j for j, _ in listed]
            assert columns[:whole] == sorted(columns[:whole]) and columns[whole:] == sorted(columns[whole:])


def test_tiles_before_the_first_key() -> None:
    """Where nothing is causal queries may stand there; the tables of later tiles are the same."""
    of = of_block("both_ways_masked", 16)
    tables = of.part("rules.tables")
    behind, all_of_them = (tables.tile_table(0, 8, 16, 3, 20, first=first) for first in (0, -16))
    assert [entries(behind, n) for n in range(3)] == [entries(all_of_them, n + 16) for n in range(3)]
    assert entries(all_of_them, 0) == (0, [(0, 0)])  # the sink alone, by tokens


def test_a_longer_table_serves_shorter_lengths() -> None:
    of = made(HEAD + "shards: [{heads: all, local: 1, random: {blocks: 2, seed: 5}}]")
    tables = of.part("rules.tables")
    long, short = tables.tile_table(0, 8, 16, 40, 320), tables.tile_table(0, 8, 16, 10, 80)
    assert all(x is y for x, y in zip(long, short, strict=True))
    assert tables.tile_table(0, 12, 16, 10, 80)[0] is not long[0]
