"""Lowering: from a pattern to something that a kernel can walk, by us and by peers.

Each way has a process of its own, which may be refused memory or cut off, and takes its lengths one after the other.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

PATIENCE_S = 60.0  # a peer that takes longer is cut off, and its cell says so

WAYS = (
    "closed form",
    "table",
    "dense bitmap to CSR",
    "create_block_mask",
    "create_block_mask, compiled",
    "from_kv_blocks",
)
SIZES = {  # tokens for which a way is tried
    "closed form": (8192, 65536, 1 << 20, 1 << 24),
    "table": (8192, 65536, 262144, 1 << 20),
    "dense bitmap to CSR": (8192, 32768, 65536, 131072, 262144),
    "create_block_mask": (1024, 2048, 4096, 8192),
    "create_block_mask, compiled": (2048, 4096, 8192, 16384),  # compiled once, for any length
    "from_kv_blocks": (8192, 16384, 32768, 65536),
}
TABLE_ROWS = 16384  # of blocks: the table of four times as many would be sixteen times as large
SHORT_S = 0.5  # what took longer so far is not repeated
MEMORY_SHARE = 0.7  # of the machine's: a process that wants more is refused by the allocator, instead of being killed
SHAPES = ((8, 128), (32, 64), (32, 16), (128, 64))  # heads, block


def run() -> Iterator[dict[str, object]]:
    """One row a way, length, number of heads and block."""
    for way in WAYS:
        for heads, block in SHAPES if way in ("closed form", "table") else SHAPES[1:2]:
            tried = [n for n in SIZES[way] if way != "table" or n // block <= TABLE_ROWS]
            results = _child(way, heads, block, tried)
            for tokens in SIZES[way]:
                row = {"what": way, "heads": heads, "block": block, "tokens": tokens}
                row["cell"] = f"{way}, {heads} heads, block {block}, {tokens} tokens"
                if tokens in tried:
                    yield {**row, **next(results)}
                else:
                    note = f"not tried: {tokens // block} rows of blocks, {TABLE_ROWS} are the most here"
                    yield {**row, "note": note}


def _child(way: str, heads: int, block: int, sizes: Sequence[int]) -> Iterator[dict[str, object]]:
    """What is found for each length, as it comes; once the process has failed or was cut off, why."""
    command = [sys.executable, "-m", "benchmarks.lowering", way, *map(str, (heads, block, *sizes))]
    with (
        tempfile.TemporaryFile("w+") as printed,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=printed, text=True) as child,
    ):
        patience = threading.Timer(PATIENCE_S, child.kill)
        patience.start()
        try:
            left = len(sizes)
            for line in child.stdout or ():
                left -= 1
                yield json.loads(line)
            cut_off = not patience.is_alive()
            printed.seek(0)
            last = (printed.read().strip().splitlines() or [f"ended with {child.wait()}"])[-1][:200]
            for _ in range(left):
                yield {"note": f"stopped after {PATIENCE_S:.0f} s" if cut_off else last}
        finally:
            patience.cancel()
            child.kill()


def _measure(way: str, heads: int, block: int, tokens: int) -> dict[str, object]:
    """Seconds, the median of five runs where they are short, and bytes of the result and of the first run's peak.
    Runs in the child."""
    import time

    from benchmarks.memory import peak

    build = {
        "closed form": _closed,
        "table": _table,
        "dense bitmap to CSR": _bitmap,
        "create_block_mask": _flex,
        "create_block_mask, compiled": _flex_compiled,
        "from_kv_blocks": _flex_from_blocks,
    }[way](heads, block, tokens)
    seconds, sizes = [], []

    def timed() -> None:
        begin = time.perf_counter()
        sizes.append(build())
        seconds.append(time.perf_counter() - begin)

    highest = peak(timed)
    while len(seconds) < 5 and sum(seconds) < SHORT_S:
        timed()
    spread = {"seconds": statistics.median(seconds), "seconds_min": min(seconds), "seconds_max": max(seconds)}
    rounded = {name: round(value, 6) for name, value in spread.items()}
    return {"runs": len(seconds), **rounded, "bytes": sizes[0], "peak_bytes": highest}


def _classes(heads: int, block: int):
    from benchmarks.patterns import strided
    from patterncc.language import loads
    from patterncc.passes import lower

    pattern = loads(strided(name="lowered", heads=heads, stride=16, local=1024 // block, block=block))
    return lambda: lower(pattern)


def _closed(heads: int, block: int, tokens: int):
    """From the checked pattern to the plan: the length does not occur."""
    from patterncc.passes.choose_plan import choose_plan

    classes = _classes(heads, block)
    classes()  # the first call also imports
    return lambda: len(str(choose_plan(classes())))


def _table(heads: int, block: int, tokens: int):
    from patterncc.passes.lower_table import lower_table

    classes, rows = _classes(heads, block)(), tokens // block

    def build() -> int:
        tables = [lower_table(layout, causal=True, block=block, rows=rows, columns=rows) for layout in classes.layouts]
        return sum(table.pointers.nbytes + table.columns.nbytes for table in tables)

    return build


def _kept(heads: int, rows: int, block: int):
    """The same pattern as a dense block mask, bool [heads, rows, rows]."""
    import numpy as np

    h, i, j = np.ogrid[:heads, :rows, :rows]
    return (j <= i) & ((i - j < 1024 // block) | ((j - h) % 16 == 0))


def _bitmap(heads: int, block: int, tokens: int):
    import numpy as np

    def build() -> int:
        mask = _kept(heads, tokens // block, block)
        counts = mask.sum(2, dtype=np.int32)
        columns = np.nonzero(mask)[2].astype(np.int32)
        return counts.nbytes + columns.nbytes

    return build


def _flex(heads: int, block: int, tokens: int, compiled: bool = False):
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(b: Any, h: Any, q: Any, k: Any) -> Any:
        i, j = q // 64, k // 64  # numbers: compiled for any length, code divides by what is a variable here
        return (q >= k) & ((i - j < 16) | ((j - h) % 16 == 0))

    if block != 64:
        raise ValueError(f"block {block}: the rule is written for 64")
    make = torch.compile(create_block_mask, dynamic=True) if compiled else create_block_mask
    if compiled:
        make(rule, None, heads, 1024, 1024, device="cpu", BLOCK_SIZE=block)  # compiling is not counted
    return lambda: _size(make(rule, None, heads, tokens, tokens, device="cpu", BLOCK_SIZE=block))


def _flex_compiled(heads: int, block: int, tokens: int):
    return _flex(heads, block, tokens, compiled=True)


def _flex_from_blocks(heads: int, block: int, tokens: int):
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    def build() -> int:
        kept = torch.from_numpy(_kept(heads, tokens // block, block))[None]
        counts = kept.sum(-1, dtype=torch.int32)
        indices = torch.argsort(kept.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32)
        return _size(BlockMask.from_kv_blocks(counts, indices, BLOCK_SIZE=block))

    return build


def _size(mask: Any) -> int:
    names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    names += ("q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices")
    tensors = [getattr(mask, name) for name in names]
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def _limit_memory() -> None:
    import resource

    most = int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


if __name__ == "__main__":
    _limit_memory()
    _heads, _block, *_sizes = map(int, sys.argv[2:])
    for _tokens in _sizes:
        print(json.dumps(_measure(sys.argv[1], _heads, _block, _tokens)), flush=True)
