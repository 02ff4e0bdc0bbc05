"""CPU attention, forward and backward: the generated package against dense SDPA and compiled flex_attention.

The ideal is 1 / density: what would be won if the time were proportional to the token pairs that are kept.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F

from benchmarks.memory import peak
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
BACKWARD = {2048: ((4, 16),), 4096: ((4, 16),), 8192: ((16, 16), (4, 16)), 32768: ((4, 64),)}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FLEX_MOST = 16384  # its tables grow with the square
# Dense attention of more tokens would take longer than everything else together: its cells stay empty.
DENSE_MOST = {"forward": {"fp32": 32768, "bf16": 32768}, "backward": {"fp32": 8192, "bf16": 4096}}
# relative error by norm against fp64 on the rows checked: fp32 sums of some thousand terms; bf16 keeps 8 bits
TOLERANCE = {"fp32": 2e-6, "bf16": 1e-2}

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Attention = Callable[..., torch.Tensor]


def run(folder: Path, *, backward: bool = False, turns: int = 5) -> Iterator[dict[str, object]]:
    """One row a length, pattern and dtype: seconds of all, speed-up over dense, share of the ideal, peak memory. The
    patterns of a length run in alternation with one dense attention. Backward is forward and backward together."""
    for tokens, shapes in (BACKWARD if backward else FORWARD).items():
        packages = {shape: _package(folder, *shape) for shape in shapes}
        for dtype in DTYPES:
            yield from _rows(packages, tokens, dtype, "backward" if backward else "forward", turns)
            gc.collect()


def _package(folder: Path, local: int, stride: int) -> ModuleType:
    import patterncc

    text = strided(
        name=f"cpu_l{local}_s{stride}", heads=HEADS, stride=stride, local=local, head_dim=HEAD_DIM, block=BLOCK
    )
    return patterncc.load(written(text, folder))


def _rows(
    packages: dict[tuple[int, int], ModuleType], tokens: int, dtype: str, direction: str, turns: int
) -> Iterator[dict[str, object]]:
    torch.manual_seed(0)
    inputs = tuple(torch.randn(1, HEADS, tokens, HEAD_DIM, dtype=DTYPES[dtype]) for _ in range(3))
    backward = direction == "backward"
    calls: dict[str, Callable[[], object]] = {}
    if tokens <= DENSE_MOST[direction][dtype]:
        calls["dense"] = _timed(partial(F.scaled_dot_product_attention, is_causal=True), inputs, backward)
    errors = {}
    for (local, stride), package in packages.items():
        error = errors[local, stride] = _error(package, inputs, backward)
        if not error < TOLERANCE[dtype]:
            raise AssertionError(f"wrong before any time was taken: {dtype}, {tokens} tokens, error {error:.1e}")
        calls[f"patterncc {local} {stride}"] = _timed(package.attention, inputs, backward)
        if not backward and tokens <= FLEX_MOST:  # on the CPU flex_attention has no backward
            call = calls[f"flex {local} {stride}"] = _timed(_flex(tokens, local, stride), inputs, backward)
            call()  # compiles
    peaks: dict[str, int | None] = {}
    times = alternate({name: _first_watched(name, call, peaks) for name, call in calls.items()}, turns, limit_s=6)
    for local, stride in packages:
        density = kept_share(tokens, block=BLOCK, local=local, stride=stride, heads=HEADS)
        row: dict[str, object] = {
            "direction": direction,
            "tokens": tokens,
            "local": local,
            "stride": stride,
            "dtype": dtype,
            "density": round(density, 4),
            "error": float(f"{errors[local, stride]:.1e}"),
        }
        ours = times[f"patterncc {local} {stride}"].wall_s
        for name in ("dense", f"patterncc {local} {stride}", f"flex {local} {stride}"):
            if name in times:
                who = name.split()[0]
                row |= {f"{who}_{field}": value for field, value in times[name].json().items()}
                row[f"{who}_peak_bytes"] = peaks[name]
        if "dense" in times:
            speedup = times["dense"].wall_s / ours
            row |= {"speedup": round(speedup, 3), "share_of_ideal": round(speedup * density, 3)}
        if f"flex {local} {stride}" in times:
            row["over_flex"] = round(times[f"flex {local} {stride}"].wall_s / ours, 3)
        yield row


def _timed(attention: Attention, inputs: Tensors, backward: bool) -> Callable[[], object]:
    if not backward:

        def forward() -> None:
            with torch.no_grad():
                attention(*inputs)

        return forward
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    gradient = torch.randn_like(inputs[0])

    def both() -> None:
        torch.autograd.grad(attention(*inputs), inputs, gradient)

    return both


def _first_watched(name: str, call: Callable[[], object], peaks: dict[str, int | None]) -> Callable[[], object]:
    """The call, of which the first, which is not timed, tells how much memory it takes at most."""

    def watched() -> None:
        if name in peaks:
            call()
        else:
            peaks[name] = peak(call)

    return watched


def _error(package: ModuleType, inputs: Tensors, backward: bool) -> float:
    """The greatest relative error by norm, of the last 64 rows' output and, backward, of the gradients that come from
    them, against fp64 with the package's own dense mask."""
    rows = 64
    mask = package.dense_mask(rows, inputs[1].shape[2])
    q, k, v = (x.clone().requires_grad_(backward) for x in inputs)
    q64, k64, v64 = (x.detach().double().requires_grad_(backward) for x in (q[:, :, -rows:], k, v))
    ours = package.attention(q, k, v)[:, :, -rows:]
    exact = F.scaled_dot_product_attention(q64, k64, v64, attn_mask=mask)
    pairs = [(ours, exact)]
    if backward:
        gradient = torch.randn_like(ours)
        found = torch.autograd.grad(ours, (q, k, v), gradient)
        true = torch.autograd.grad(exact, (q64, k64, v64), gradient.double())
        pairs += [(found[0][:, :, -rows:], true[0]), (found[1], true[1]), (found[2], true[2])]
    return max(float((x.detach().double() - y.detach()).norm() / y.detach().norm()) for x, y in pairs)


def _flex(tokens: int, local: int, stride: int) -> Attention:
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
