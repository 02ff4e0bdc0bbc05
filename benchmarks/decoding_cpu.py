"""Decoding on the CPU: one token a step from the compact cache, against SDPA over the full cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F

from benchmarks.gpu.cases import Case
from benchmarks.gpu.witness import WrongError, forward_squares, within
from benchmarks.patterns import written
from benchmarks.timing import Sample, alternate

HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
CASE = Case("decoded", HEADS, KV_HEADS, HEAD_DIM, block=64, stride=16, window=1024, offset="g")
LENGTHS = (4096, 32768)
STEPS = 16  # a turn


def run(folder: Path) -> Iterator[dict[str, object]]:
    """One row a length: seconds a step, bytes held, and their ratios to the full cache."""
    import patterncc

    package = patterncc.load(written(CASE.text, folder))
    for length in LENGTHS:
        yield _row(package, length)


def _row(package: ModuleType, length: int) -> dict[str, object]:
    torch.manual_seed(0)
    k, v = (torch.randn(1, KV_HEADS, length, HEAD_DIM) for _ in range(2))
    cache = package.KVCache(1, dtype=torch.float32, device="cpu")
    cache.step(torch.randn(1, HEADS, length, HEAD_DIM), k, v)  # the prompt
    q, new_k, new_v = (torch.randn(1, n, 1, HEAD_DIM) for n in (HEADS, KV_HEADS, KV_HEADS))
    check = cache.fork(torch.zeros(1, dtype=torch.int64)).step(q, new_k, new_v)
    full_k, full_v = torch.cat((k, new_k), 2), torch.cat((v, new_v), 2)
    squares = forward_squares(CASE, q[0], full_k[0], full_v[0], check[0], torch.tensor([0]))
    error = within(2e-6, f"a token after {length}, before any time was taken", squares)  # sums of some thousand terms

    def compact() -> None:
        for _ in range(STEPS):
            cache.step(q, new_k, new_v)

    def full() -> None:
        for _ in range(STEPS):
            _folded(q, full_k, full_v)

    wanted = F.scaled_dot_product_attention(q, full_k, full_v, enable_gqa=True)
    if not torch.allclose(_folded(q, full_k, full_v), wanted, rtol=0, atol=1e-5):  # of means of thousands of values
        raise WrongError(f"a token after {length}: the way that is compared is no attention over everything")

    held, whole = cache.bytes, 2 * full_k.numel() * full_k.element_size()
    times = alternate({"compact": compact, "full": full})
    return {
        "tokens": length,
        "steps": STEPS * times["compact"].runs,
        **_per_step("compact", times["compact"]),
        **_per_step("full", times["full"]),
        "speedup": round(times["full"].wall_s / times["compact"].wall_s, 3),
        "compact_bytes": held,
        "full_bytes": whole,
        "bytes_kept": round(held / whole, 4),
        "error": error,
    }


def _folded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of one query token a head to all keys. Heads of a KV head stand as its queries, which no mask tells
    apart: with `enable_gqa`, torch copies keys and values for each head, and takes up to three times as long."""
    grouped = q.view(q.shape[0], KV_HEADS, HEADS // KV_HEADS, HEAD_DIM)
    return F.scaled_dot_product_attention(grouped, k, v).view_as(q)


def _per_step(who: str, turns: Sample) -> dict[str, float]:
    """Seconds of a step: the median turn's, and the least and the greatest."""
    fields = {"": turns.wall_s, "_min": turns.wall_min_s, "_max": turns.wall_max_s}
    return {f"{who}_s_per_step{field}": round(seconds / STEPS, 7) for field, seconds in fields.items()}
