"""CPU attention, forward and backward: the generated package against dense SDPA and compiled flex_attention.

The ideal is 1 / density: what would be won if the time were proportional to the token pairs that are kept.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F

from benchmarks.patterns import kept_share, strided, written
from benchmarks.timing import alternate

HEADS, HEAD_DIM, BLOCK = 8, 64, 64
FORWARD = {  # tokens -> (local blocks, stride) that give densities from about 1/4 to 1/32
    2048: ((4, 16),),
    4096: ((16, 16), (4, 16)),
    8192: ((16, 16), (4, 16)),
    16384: ((16, 16), (4, 16), (4, 64)),
    32768: ((4, 64),),
}
BACKWARD = {2048: ((4, 16),), 8192: ((4, 16),)}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FLEX_MOST = 16384  # its tables grow with the square
# relative error by norm against fp64 on the rows checked: fp32 sums of some thousand terms; bf16 keeps 8 bits
TOLERANCE = {"fp32": 2e-6, "bf16": 1e-2}


def run(folder: Path, *, backward: bool = False, turns: int = 5) -> Iterator[dict[str, object]]:
    """One row a length, pattern and dtype: seconds of all, speed-up over dense, share of the ideal."""
    for tokens, shapes in (BACKWARD if backward else FORWARD).items():
        for local, stride in shapes:
            package = _package(folder, local, stride)
            for dtype in DTYPES:
                yield {
                    "direction": "backward" if backward else "forward",
                    "tokens": tokens,
                    "local": local,
                    "stride": stride,
                    "dtype": dtype,
                    **_compare(package, tokens, local, stride, dtype, backward, turns),
                }
                gc.collect()


def _package(folder: Path, local: int, stride: int) -> ModuleType:
    import patterncc

    text = strided(
        name=f"cpu_l{local}_s{stride}", heads=HEADS, stride=stride, local=local, head_dim=HEAD_DIM, block=BLOCK
    )
    return patterncc.load(written(text, folder))


def _compare(
    package: ModuleType, tokens: int, local: int, stride: int, dtype: str, backward: bool, turns: int
) -> dict[str, object]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, tokens, HEAD_DIM, dtype=DTYPES[dtype]) for _ in range(3))
    error = _error(package, q, k, v)
    if not error < TOLERANCE[dtype]:
        raise AssertionError(f"wrong before any time was taken: {dtype}, {tokens} tokens, error {error:.1e}")
    calls: dict[str, Callable[[], object]] = {
        "dense": _timed(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v, backward),
        "patterncc": _timed(package.attention, q, k, v, backward),
    }
    if not backward and tokens <= FLEX_MOST:  # on the CPU flex_attention has no backward
        calls["flex"] = _timed(_flex(tokens, local, stride), q, k, v, backward=False)
    times = alternate(calls, turns, limit_s=6)
    density = kept_share(tokens, block=BLOCK, local=local, stride=stride, heads=HEADS)
    speedup = times["dense"].wall_s / times["patterncc"].wall_s
    row: dict[str, object] = {
        "density": round(density, 4),
        "error": float(f"{error:.1e}"),
        **{f"{name}_{field}": value for name, t in times.items() for field, value in t.json().items()},
        "speedup": round(speedup, 3),
        "share_of_ideal": round(speedup * density, 3),
    }
    if "flex" in times:
        row["over_flex"] = round(times["flex"].wall_s / times["patterncc"].wall_s, 3)
    return row


def _timed(
    attention: Callable[..., torch.Tensor], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backward: bool
) -> Callable[[], object]:
    if not backward:

        def forward() -> None:
            with torch.no_grad():
                attention(q, k, v)

        return forward
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    gradient = torch.randn_like(q)

    def both() -> None:
        torch.autograd.grad(attention(*inputs), inputs, gradient)

    return both


def _error(package: ModuleType, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> float:
    """Relative error by norm of the last 64 rows against fp64 with the package's own dense mask."""
    rows = 64
    mask = package.dense_mask(rows, k.shape[2])
    with torch.no_grad():
        ours = package.attention(q, k, v)[:, :, -rows:].double()
        exact = F.scaled_dot_product_attention(q[:, :, -rows:].double(), k.double(), v.double(), attn_mask=mask)
    return float((ours - exact).norm() / exact.norm())


def _flex(tokens: int, local: int, stride: int) -> Callable[..., torch.Tensor]:
    """Compiled flex_attention with the same mask; its block mask is built by blocks, which is its fastest way."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    n = tokens // BLOCK
    h, i, j = torch.arange(HEADS).view(-1, 1, 1), torch.arange(n).view(1, -1, 1), torch.arange(n).view(1, 1, -1)
    kept = (j <= i) & ((i - j < local) | ((j - h) % stride == 0))
    partial = kept & (i == j)
    tables = []
    for blocks in (partial, kept & (i != j)):
        tables.append(blocks.sum(-1, dtype=torch.int32)[None])
        tables.append(torch.argsort(blocks.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32)[None])

    def rule(b, h, q, k):
        row, column = q // BLOCK, k // BLOCK
        return (q >= k) & ((row - column < local) | ((column - h) % stride == 0))

    mask = BlockMask.from_kv_blocks(*tables, BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=(tokens, tokens))
    compiled = torch.compile(flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask)
