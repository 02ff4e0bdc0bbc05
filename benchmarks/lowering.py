"""Lowering: from a pattern to something that a kernel can walk, by us and by peers.

Each figure comes from a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
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
    "create_block_mask, compiled": (8192,),
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
            for tokens in SIZES[way]:
                row = {"what": way, "heads": heads, "block": block, "tokens": tokens}
                row["cell"] = f"{way}, {heads} heads, block {block}, {tokens} tokens"
                if way == "table" and tokens // block > TABLE_ROWS:
                    yield {
                        **row,
                        "note": f"not tried: {tokens // block} rows of blocks, {TABLE_ROWS} are the most here",
                    }
                else:
                    yield {**row, **_child(way, heads, block, tokens)}


def growth(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The law of each way at 32 heads and block 64: time, peak memory and size of the result as powers of the number of
    tokens, fitted by least squares to the logarithms of all lengths."""
    found = []
    for way in WAYS:
        own = [row for row in rows if row["what"] == way and (row["heads"], row["block"]) == SHAPES[1]]
        for quantity in ("seconds", "peak_bytes", "bytes"):
            points = {row["tokens"]: row[quantity] for row in own if row.get(quantity)}
            if len(points) >= 3:
                law = {"tokens": [min(points), max(points)], "points": len(points), **power_law(points)}
                found.append({"what": way, "quantity": quantity, **law})
    return found


def power_law(points: Mapping[float, float]) -> dict[str, float | None]:
    """`factor · x ** exponent`; the share of the variance that it explains (R²; None where nothing varies), and how
    many times too high or too low it is at most. `at_the_end` is the exponent between the two largest x.

    >>> power_law({1: 3.0, 2: 12.0, 4: 48.0})
    {'exponent': 2.0, 'factor': 3.0, 'r2': 1.0, 'off_by_at_most': 1.0, 'at_the_end': 2.0}
    """
    x, y = ([math.log(value) for value in values] for values in (points.keys(), points.values()))
    exponent, offset = statistics.linear_regression(x, y)
    residuals = [b - offset - exponent * a for a, b in zip(x, y, strict=True)]
    before, last = sorted(zip(x, y, strict=True))[-2:]
    varies = sum((b - statistics.fmean(y)) ** 2 for b in y)
    return {
        "exponent": round(exponent, 2) + 0.0,
        "factor": float(f"{math.exp(offset):.4g}"),
        "r2": round(1 - sum(r * r for r in residuals) / varies, 4) if varies > 0.01 else None,
        "off_by_at_most": round(math.exp(max(map(abs, residuals))), 2),
        "at_the_end": round((last[1] - before[1]) / (last[0] - before[0]), 2) + 0.0,
    }


def _child(way: str, heads: int, block: int, tokens: int) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.lowering", way, str(heads), str(block), str(tokens)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return {"note": f"stopped after {PATIENCE_S:.0f} s"}
    if done.returncode:
        return {"note": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:200]}
    return json.loads(done.stdout)


def _measure(way: str, heads: int, block: int, tokens: int) -> dict[str, object]:
    """Seconds, the median of five runs where they are short, and bytes of the result and of the first run's peak above
    what importing took. Runs in the child."""
    import resource
    import time

    build = {
        "closed form": _closed,
        "table": _table,
        "dense bitmap to CSR": _bitmap,
        "create_block_mask": _flex,
        "create_block_mask, compiled": _flex_compiled,
        "from_kv_blocks": _flex_from_blocks,
    }[way](heads, block, tokens)
    most = int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    size = build()
    seconds = [time.perf_counter() - begin]
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    while len(seconds) < 5 and sum(seconds) < SHORT_S:
        begin = time.perf_counter()
        build()
        seconds.append(time.perf_counter() - begin)
    spread = {"seconds": statistics.median(seconds), "seconds_min": min(seconds), "seconds_max": max(seconds)}
    rounded = {name: round(value, 6) for name, value in spread.items()}
    return {"runs": len(seconds), **rounded, "bytes": size, "peak_bytes": peak}


def _classes(heads: int, block: int):
    from benchmarks.patterns import strided
    from patterncc.passes.merge_heads import merge_heads
    from patterncc.passes.normalise import normalise
    from patterncc.passes.resolve_heads import resolve_heads
    from patterncc.spec import loads

    pattern = loads(strided(name="lowered", heads=heads, stride=16, local=1024 // block, block=block))
    return lambda: normalise(merge_heads(pattern, resolve_heads(pattern)))


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
        size = 0
        for layout in classes.layouts:
            table = lower_table(layout, causal=True, block=block, rows=rows, columns=rows)
            size += table.pointers.nbytes + table.columns.nbytes
        return size

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
        i, j = q // block, k // block
        return (q >= k) & ((i - j < 1024 // block) | ((j - h) % 16 == 0))

    make = torch.compile(create_block_mask) if compiled else create_block_mask
    if compiled:
        make(rule, None, heads, tokens, tokens, device="cpu", BLOCK_SIZE=block)  # compiling is not counted
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


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], *map(int, sys.argv[2:]))))
