"""Decoding on the CPU: one token a step from the compact cache, against SDPA over the full cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F

from benchmarks.patterns import strided, written
from benchmarks.timing import Sample, alternate

HEADS, KV_HEADS, HEAD_DIM, BLOCK = 32, 8, 128, 64
LOCAL, STRIDE = 16, 16
LENGTHS = (4096, 32768)
STEPS = 16  # a turn


def run(folder: Path) -> Iterator[dict[str, object]]:
    """One row a length: seconds a step, bytes held, and their ratios to the full cache."""
    import patterncc

    text = strided(
        name="decoded", heads=HEADS, kv_heads=KV_HEADS, stride=STRIDE, local=LOCAL, head_dim=HEAD_DIM, block=BLOCK
    ).replace("offset: h", "offset: g")
    package = patterncc.load(written(text, folder))
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
    mask = package.dense_mask(1, length + 1)
    exact = F.scaled_dot_product_attention(
        q.double(), full_k.double(), full_v.double(), attn_mask=mask, enable_gqa=True
    )
    error = float((check.double() - exact).norm() / exact.norm())
    if not error < 2e-6:  # fp32 sums of some thousand terms
        raise AssertionError(f"wrong before any time was taken: error {error:.1e}")

    def compact() -> None:
        for _ in range(STEPS):
            cache.step(q, new_k, new_v)

    def full() -> None:
        for _ in range(STEPS):
            F.scaled_dot_product_attention(q, full_k, full_v, enable_gqa=True)

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
        "error": float(f"{error:.1e}"),
    }


def _per_step(who: str, turns: Sample) -> dict[str, float]:
    """Seconds of a step: the median turn's, and the least and the greatest."""
    fields = {"": turns.wall_s, "_min": turns.wall_min_s, "_max": turns.wall_max_s}
    return {f"{who}_s_per_step{field}": round(seconds / STEPS, 7) for field, seconds in fields.items()}
