"""CPU attention, forward and backward: the generated package against dense SDPA and compiled flex_attention.

The ideal is 1 / density: what would be won if the time were proportional to the token pairs that are kept. Dense is the
faster of torch's own attention in that dtype and, backward in bf16, of the same through fp32: without bf16
instructions torch's own takes six times as long as that.
"""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.gpu.cases import Case
from benchmarks.gpu.witness import WrongError, check_sequences
from benchmarks.memory import peak
from benchmarks.patterns import kept_share, strided, written
from benchmarks.peers_cpu import Attention, dense, dense_through_fp32, flex, forget_compiled
from benchmarks.timing import alternate

HEADS, HEAD_DIM, BLOCK = 8, 64, 64
FORWARD = {  # tokens -> (local blocks, stride) that give densities from about 1/4 to 1/32
    2048: ((4, 16),),
    4096: ((16, 16), (4, 16)),
    8192: ((16, 16), (4, 16)),
    16384: ((16, 16), (4, 16), (4, 64)),
    32768: ((4, 64),),
}
BACKWARD = {2048: ((4, 16),), 4096: ((4, 16),), 8192: ((16, 16), (4, 16)), 16384: ((4, 16), (4, 64)), 32768: ((4, 64),)}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FLEX_MOST = 32768
# Of more tokens, torch's own backward takes 11 s to four minutes in bf16: there only the way through fp32 is measured.
OWN_BF16_BACKWARD_MOST = 4096
SECONDS_A_PAIR = {"forward": 1.9e-9, "backward": 7.2e-9}  # and head, of dense attention, about: whether it still fits
# relative error by norm against fp64 on the rows checked: fp32 sums of some thousand terms; bf16 keeps 8 bits
TOLERANCE = {"fp32": 2e-6, "bf16": 1e-2}

Tensors = tuple[torch.Tensor, ...]  # q, k and v [1, heads, tokens, head_dim]
Packages = dict[tuple[int, int], ModuleType]  # by local blocks and stride


def run(
    folder: Path, *, backward: bool = False, turns: int = 5, deadline: float = float("inf")
) -> Iterator[dict[str, object]]:
    """One row a length, pattern and dtype: seconds of all, speed-up over dense, share of the ideal, peak memory. The
    patterns of a length run in alternation with one dense attention. Backward is forward and backward together.
    Dense attention that would run past the deadline (`time.perf_counter`) is left out, and past it everything is."""
    direction = "backward" if backward else "forward"
    for tokens, shapes in (BACKWARD if backward else FORWARD).items():
        packages: Packages = {}
        for dtype in DTYPES:
            cells = {shape: _cell(direction, tokens, shape, dtype) for shape in shapes}
            if time.perf_counter() > deadline:
                yield from ({**cell, "note": "not measured: the suite's time was over"} for cell in cells.values())
                continue
            packages = packages or {shape: _package(folder, *shape) for shape in shapes}
            yield from _rows(packages, cells, dtype, turns, deadline)
            gc.collect()


def _package(folder: Path, local: int, stride: int) -> ModuleType:
    import patterncc

    text = strided(
        name=f"cpu_l{local}_s{stride}", heads=HEADS, stride=stride, local=local, head_dim=HEAD_DIM, block=BLOCK
    )
    return patterncc.load(written(text, folder))


def _rows(
    packages: Packages, cells: dict[tuple[int, int], dict[str, Any]], dtype: str, turns: int, deadline: float
) -> Iterator[dict[str, Any]]:
    tokens, direction = (next(iter(cells.values()))[name] for name in ("tokens", "direction"))
    torch.manual_seed(0)
    inputs = tuple(torch.randn(1, HEADS, tokens, HEAD_DIM, dtype=DTYPES[dtype]) for _ in range(3))
    calls: dict[str, Callable[[], object]] = {}
    backward = direction == "backward"
    for name, attention in _dense(tokens, dtype, direction, deadline).items():
        calls[name] = _timed(attention, inputs, backward)
    forget_compiled()
    for (local, stride), package in packages.items():
        cell = cells[local, stride]
        error = _error(package.attention, cell, inputs, backward)
        cell |= {"error": error, "path": _path(package, inputs[0]), "products": _products(package, inputs[0])}
        calls[f"patterncc {local} {stride}"] = _timed(package.attention, inputs, backward)
        if not backward and tokens <= FLEX_MOST:  # on the CPU flex_attention has no backward
            attention = flex(tokens, heads=HEADS, block=BLOCK, local=local, stride=stride)
            call = _timed(attention, inputs, backward)
            try:
                _error(attention, cell, inputs, backward)  # compiles
            except WrongError:
                raise
            except Exception as error:  # without a C++ compiler it has many ways to say so
                cell["flex_note"] = f"flex_attention does not compile: {str(error).strip().splitlines()[0][:150]}"
            else:
                calls[f"flex {local} {stride}"] = call
    peaks: dict[str, int | None] = {}
    times = alternate({name: _first_watched(name, call, peaks) for name, call in calls.items()}, turns, limit_s=6)
    for (local, stride), cell in cells.items():
        for name in times:
            who, *shape = name.split()
            if shape in ([], [str(local), str(stride)]):
                cell |= {f"{who}_{field}": value for field, value in times[name].json().items()}
                cell[f"{who}_peak_bytes"] = peaks[name]
        yield {**cell, **_ratios(cell)}


def _cell(direction: str, tokens: int, shape: tuple[int, int], dtype: str) -> dict[str, Any]:
    local, stride = shape
    density = kept_share(tokens, block=BLOCK, local=local, stride=stride, heads=HEADS)
    return {
        "cell": f"{direction}, {dtype}, {tokens} tokens, local {local}, stride {stride}",
        "direction": direction,
        "tokens": tokens,
        "local": local,
        "stride": stride,
        "dtype": dtype,
        "density": round(density, 4),
    }


def _dense(tokens: int, dtype: str, direction: str, deadline: float) -> dict[str, Attention]:
    """The ways to attend to everything that are measured, none where there is no time left for one turn."""
    ways: dict[str, Attention] = {"dense": dense}
    if (dtype, direction) == ("bf16", "backward"):
        ways = {"dense_fp32": dense_through_fp32} | (ways if tokens <= OWN_BF16_BACKWARD_MOST else {})
    if time.perf_counter() + SECONDS_A_PAIR[direction] * HEADS * tokens**2 / 2 > deadline:
        return {}
    return ways


def _ratios(cell: Mapping[str, Any]) -> dict[str, float]:
    """Speed-ups of the medians over dense and flex_attention, and the share of the ideal."""
    ours, found = cell["patterncc_wall_s"], {}
    dense_s = [cell[name] for name in ("dense_wall_s", "dense_fp32_wall_s") if name in cell]
    if dense_s:
        speedup = min(dense_s) / ours
        found = {"speedup": round(speedup, 3), "share_of_ideal": round(speedup * cell["density"], 3)}
    if "flex_wall_s" in cell:
        found["over_flex"] = round(cell["flex_wall_s"] / ours, 3)
    return found


def _path(package: ModuleType, q: torch.Tensor) -> str:
    """Which of the package's ways through the CPU attends to such queries: its compiled kernels, or torch."""
    try:
        compiled = importlib.import_module(f"{package.__name__}.cpu.compiled")
    except ImportError:
        return "torch"
    return "compiled" if compiled.usable(q) else "torch"


def _products(package: ModuleType, q: torch.Tensor) -> str:
    """In what the processor multiplies them: "fp32", or "own" where 16-bit numbers are left to its own tiles."""
    try:
        compiled = importlib.import_module(f"{package.__name__}.cpu.compiled")
    except ImportError:
        return "fp32"
    return "own" if q.dtype != torch.float32 and compiled.has_half_products() else "fp32"


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


def _error(attention: Attention, cell: Mapping[str, Any], inputs: Tensors, backward: bool) -> float:
    """The greatest relative error of some rows, by norm, and backward of the gradients that come from them; WrongError
    where rounding does not explain it."""
    case = Case("cpu", HEADS, HEADS, HEAD_DIM, BLOCK, cell["stride"], window=cell["local"] * BLOCK)
    q, k, v = (x.clone().requires_grad_(backward) for x in inputs)
    try:
        return check_sequences(case, TOLERANCE[cell["dtype"]], attention, q, k, v)
    except WrongError as error:
        raise WrongError(f"{cell['cell']}, before any time was taken: {error}") from None
