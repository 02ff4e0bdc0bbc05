"""The gpu suite: what the machine can do, then how much of it the generated kernels reach.

Needs torch, triton and the folder that `python -m benchmarks prepare` wrote. With `toy` everything runs at tiny sizes
on the CPU, in Triton's interpreter, so that the suite itself can be tried anywhere; those times mean nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.gpu_packages import CASES, local_blocks
from benchmarks.patterns import kept_share

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """One cell of the suite."""

    case: str
    batch: int
    tokens: int
    backward: bool = True
    flex: bool = True


SHAPES = (
    *(Shape("ancestor", 4, tokens) for tokens in (1024, 4096, 16384, 65536)),
    *(Shape(case, 1, 16384) for case in ("block16", "block32", "block128", "dim64", "dim256", "grouped", "mixed")),
    Shape("thin", 1, 131072, flex=False),
    Shape("thin", 1, 1 << 20, backward=False, flex=False),
)
TOY = (Shape("toy", 1, 96),)


def parts(packages: Path, *, toy: bool) -> Iterator[tuple[str, Iterator[Row]]]:
    """(name, rows) of each part, in the order in which they are measured."""
    if toy:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    import torch

    if not toy and not torch.cuda.is_available():
        sys.exit("no GPU: `python -m benchmarks gpu --toy` tries the suite without one")
    if not any(packages.glob("bench_*")):
        sys.exit(f"no packages in {packages}: `python -m benchmarks prepare` writes them")
    sys.path.insert(0, str(packages))
    clock = _Clock(toy)
    ceilings = [] if toy else list(_ceilings(clock))
    best = max((row["tflops"] for row in ceilings if row["what"].startswith("dense")), default=None)
    bandwidth = next((row["tb_per_s"] for row in ceilings if row["what"] == "copy"), None)
    yield "ceilings", iter(ceilings)
    yield "first_call", _first_call(clock, toy)
    yield "attention", (row for shape in (TOY if toy else SHAPES) for row in _attention(clock, shape, best))
    yield "varlen", _varlen(clock, toy)
    yield "paged", _paged(clock, toy)
    yield "decoding", _decoding(clock, toy, bandwidth)


class _Clock:
    """Seconds of a call on the device: the median of repeated runs, with the cache of the device flushed between."""

    def __init__(self, toy: bool) -> None:
        import torch

        self.toy = toy
        self.device = "cpu" if toy else "cuda"
        self.dtype = torch.float32 if toy else torch.bfloat16
        self.flush = None if toy else torch.empty(64 << 20, dtype=torch.int32, device="cuda")

    def __call__(self, call: Callable[[], object], budget_s: float = 0.4) -> float:
        import torch

        call()
        if self.toy:
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < 5 or (time.perf_counter() - begin < budget_s and len(times) < 50):
            self.flush.zero_()
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / 1e3)
        return sorted(times)[len(times) // 2]


def _ceilings(clock: _Clock) -> Iterator[Row]:
    """What the machine does at best: copying, multiplying, and dense causal attention by each of SDPA's backends."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    x = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
    y = torch.empty_like(x)
    yield {"what": "copy", "tb_per_s": round(2 * x.numel() / clock(lambda: y.copy_(x)) / 1e12, 3)}
    a, b = (torch.randn(8192, 8192, dtype=clock.dtype, device="cuda") for _ in range(2))
    yield {"what": "matrix product", "tflops": round(2 * 8192**3 / clock(lambda: a @ b) / 1e12, 1)}
    q, k, v = (torch.randn(4, 16, 16384, 128, dtype=clock.dtype, device="cuda", requires_grad=True) for _ in range(3))
    gradient = torch.randn_like(q)
    flops = 4 * 4 * 16 * 16384**2 * 128 / 2
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        name = backend.name.split("_")[0].lower()
        try:
            with sdpa_kernel(backend):
                out = _dense(q, k, v)
                yield {"what": f"dense, {name}", "tflops": round(flops / clock(lambda: _dense(q, k, v)) / 1e12, 1)}
                back = clock(lambda out=out: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True))
                yield {"what": f"backward of dense, {name}", "tflops": round(2.5 * flops / back / 1e12, 1)}
        except RuntimeError as error:
            yield {"what": f"dense, {name}", "tflops": 0.0, "note": str(error).splitlines()[0][:100]}


def _first_call(clock: _Clock, toy: bool) -> Iterator[Row]:
    """From import to the first result, with nothing compiled before, and once more in this process."""
    import torch

    case = "toy" if toy else "ancestor"
    begin = time.perf_counter()
    package = _package(case)
    imported = time.perf_counter() - begin
    q, k, v = _inputs(clock, case, 1, 64, package)
    for what in ("first call", "second call"):
        begin = time.perf_counter()
        package.attention(q, k, v)
        if not toy:
            torch.cuda.synchronize()
        yield {"what": what, "seconds": round(time.perf_counter() - begin, 4), "import_s": round(imported, 4)}


def _attention(clock: _Clock, shape: Shape, best: float | None) -> Iterator[Row]:
    """Forward, then backward, of one shape: against dense attention and FlexAttention on the same mask."""
    import torch

    package, facts = _package(shape.case), CASES[shape.case]
    q, k, v = _inputs(clock, shape.case, shape.batch, shape.tokens, package)
    density = _density(shape.case, shape.tokens)
    pairs = shape.batch * facts["heads"] * density * shape.tokens * (shape.tokens + 1) / 2
    flops = 4 * pairs * facts["head_dim"]
    row = {
        "case": shape.case,
        "batch": shape.batch,
        "tokens": shape.tokens,
        "block": facts["block"],
        "local": local_blocks(shape.case),
        "stride": facts["stride"],
        "dtype": str(clock.dtype).removeprefix("torch."),
        "density": round(density, 5),
        "error": _check(package, q, k, v, 1e-5 if clock.toy else 1e-2),
    }
    group = facts["heads"] // facts.get("kv_heads", facts["heads"])
    wide_k, wide_v = (x.repeat_interleave(group, 1) if group > 1 else x for x in (k, v))
    with torch.no_grad():
        ours = clock(lambda: package.attention(q, k, v))
        dense = clock(lambda: _dense(q, wide_k, wide_v))
        flex = _flex_seconds(clock, shape, q, k, v) if shape.flex and not clock.toy else None
    yield {**row, "direction": "forward", **_figures(ours, dense, flex, flops, best)}
    if shape.backward:
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        wide = [x.clone().requires_grad_() for x in (q, wide_k, wide_v)]
        gradient = torch.randn_like(q)
        out, out_dense = package.attention(*inputs), _dense(*wide)
        ours = clock(lambda: torch.autograd.grad(out, inputs, gradient, retain_graph=True))
        dense = clock(lambda: torch.autograd.grad(out_dense, wide, gradient, retain_graph=True))
        yield {**row, "direction": "backward", **_figures(ours, dense, None, 2.5 * flops, best)}


def _figures(ours: float, dense: float, flex: float | None, flops: float, best: float | None) -> dict[str, Any]:
    rate = flops / ours / 1e12
    return {
        "ms": round(ours * 1e3, 4),
        "dense_ms": round(dense * 1e3, 4),
        "speedup": round(dense / ours, 3),
        "tflops": round(rate, 3),
        "share_of_dense": round(rate / best, 3) if best else None,
        "flex_ms": round(flex * 1e3, 4) if flex else None,
        "over_flex": round(flex / ours, 3) if flex else None,
    }


def _varlen(clock: _Clock, toy: bool) -> Iterator[Row]:
    """Packed sequences of unequal length, against the same sequences one by one."""
    import torch

    case = "toy" if toy else "ancestor"
    package, facts = _package(case), CASES[case]
    lengths = (48, 16, 33) if toy else (16384, 8192, 4096, 2048, 1024, 1000)
    starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device=clock.device)
    shape = (sum(lengths), facts["heads"], facts["head_dim"])
    q, k, v = (torch.randn(shape, dtype=clock.dtype, device=clock.device) for _ in range(3))
    most = max(lengths)

    def packed() -> Any:
        return package.attention_varlen(q, k, v, starts, starts, most, most)

    def apart() -> list[Any]:
        cut = [x.split(lengths) for x in (q, k, v)]
        return [package.attention(*(x.transpose(0, 1)[None] for x in part)) for part in zip(*cut, strict=True)]

    whole, each = packed(), torch.cat([x[0].transpose(0, 1) for x in apart()])
    error = float((whole.double() - each.double()).norm() / each.double().norm())
    packed_s, apart_s = clock(packed), clock(apart)
    yield {
        "sequences": len(lengths),
        "tokens": sum(lengths),
        "error": error,
        "ms": packed_s * 1e3,
        "apart_ms": apart_s * 1e3,
    }


def _paged(clock: _Clock, toy: bool) -> Iterator[Row]:
    """One launch for a mixed batch over a paged cache: decoding, a chunk of a prompt, and a whole prompt."""
    import torch

    case = "toy" if toy else "grouped"
    package, facts = _package(case), CASES[case]
    kv_heads, dim, page = facts.get("kv_heads", facts["heads"]), facts["head_dim"], 16
    queries, lengths = ((1, 5, 33), (64, 40, 33)) if toy else ((1,) * 32 + (2048, 8192), (16384,) * 33 + (8192,))
    pages = -(-max(lengths) // page)
    shape = (len(lengths) * pages, page, kv_heads, dim)
    k, v = (torch.randn(shape, dtype=clock.dtype, device=clock.device) for _ in range(2))
    table = torch.randperm(shape[0], device=clock.device).to(torch.int32).view(len(lengths), pages)
    keys = torch.tensor(lengths, dtype=torch.int32, device=clock.device)
    starts = torch.tensor([0, *torch.tensor(queries).cumsum(0).tolist()], dtype=torch.int32, device=clock.device)
    q = torch.randn(sum(queries), facts["heads"], dim, dtype=clock.dtype, device=clock.device)
    out = package.attention_paged(q, k, v, table, keys, starts)
    last = slice(int(starts[-2]), int(starts[-1]))
    flat_k, flat_v = (x[table[-1].long()].flatten(0, 1)[: lengths[-1]].transpose(0, 1)[None] for x in (k, v))
    alone = package.attention(q[last].transpose(0, 1)[None], flat_k, flat_v)[0].transpose(0, 1)
    error = float((out[last].double() - alone.double()).norm() / alone.double().norm())
    seconds = clock(lambda: package.attention_paged(q, k, v, table, keys, starts))
    yield {"requests": len(lengths), "queries": sum(queries), "error": error, "ms": seconds * 1e3}


def _decoding(clock: _Clock, toy: bool, bandwidth: float | None) -> Iterator[Row]:
    """One token a request from a paged cache: bytes of kept keys and values a second, against copying."""
    import torch

    case = "toy" if toy else "grouped"
    package, facts = _package(case), CASES[case]
    kv_heads, dim, page = facts.get("kv_heads", facts["heads"]), facts["head_dim"], 16
    for requests, length in ((2, 64),) if toy else ((1, 131072), (16, 32768), (64, 16384)):
        pages = -(-length // page)
        caches = torch.randn(2, requests * pages, page, kv_heads, dim, dtype=clock.dtype, device=clock.device)
        order = torch.randperm(requests * pages, device=clock.device)
        table = order.to(torch.int32).view(requests, pages)
        lengths = torch.full((requests,), length, dtype=torch.int32, device=clock.device)
        q = torch.randn(requests, 1, facts["heads"], dim, dtype=clock.dtype, device=clock.device)
        seconds = clock(lambda q=q, c=caches, t=table, n=lengths: package.decode(q, c[0], c[1], t, n))
        kept = int(package.dense_mask(1, length).view(kv_heads, -1, length).any(1).sum())
        rate = requests * kept * dim * 2 * caches.element_size() / seconds / 1e12
        share = round(rate / bandwidth, 3) if bandwidth else None
        yield {
            "requests": requests,
            "tokens": length,
            "ms": seconds * 1e3,
            "tb_per_s": rate,
            "share_of_bandwidth": share,
        }


def _package(case: str) -> ModuleType:
    return importlib.import_module(f"bench_{case}")


def _inputs(clock: _Clock, case: str, batch: int, tokens: int, package: ModuleType) -> list[Any]:
    import torch

    facts = CASES[case]
    heads = (facts["heads"], facts.get("kv_heads", facts["heads"]), facts.get("kv_heads", facts["heads"]))
    torch.manual_seed(0)
    return [torch.randn(batch, n, tokens, facts["head_dim"], dtype=clock.dtype, device=clock.device) for n in heads]


def _check(package: ModuleType, q: Any, k: Any, v: Any, tolerance: float) -> float:
    """Relative error by norm of the last rows against fp64; a wrong kernel is not timed."""
    rows = min(64, q.shape[2])
    mask = package.dense_mask(rows, k.shape[2]).to(q.device)
    group = q.shape[1] // k.shape[1]
    ours = package.attention(q[:1], k[:1], v[:1])[:, :, -rows:].double()
    scores = q[:1, :, -rows:].double() @ k[:1].double().repeat_interleave(group, 1).mT * q.shape[3] ** -0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    exact = weights @ v[:1].double().repeat_interleave(group, 1)
    error = float((ours - exact).norm() / exact.norm())
    if not error < tolerance:
        raise AssertionError(f"wrong before any time was taken: error {error:.1e}")
    return float(f"{error:.1e}")


def _dense(q: Any, k: Any, v: Any) -> Any:
    import torch

    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def _density(case: str, tokens: int) -> float:
    facts = CASES[case]
    dense = facts.get("dense_heads", 0)
    sparse = facts["heads"] - dense
    share = kept_share(
        tokens,
        block=facts["block"],
        local=local_blocks(case),
        stride=facts["stride"],
        heads=min(sparse, facts["stride"]),
    )
    return (share * sparse + dense) / facts["heads"]


def _flex_seconds(clock: _Clock, shape: Shape, q: Any, k: Any, v: Any) -> float | None:
    """FlexAttention on the same mask, with blocks of 128, its default; None where its block mask finds no room."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    facts = CASES[shape.case]
    block, local, stride = facts["block"], local_blocks(shape.case), facts["stride"]
    sparse = facts["heads"] - facts.get("dense_heads", 0)

    def rule(b: Any, h: Any, t: Any, u: Any) -> Any:
        i, j = t // block, u // block
        return (t >= u) & ((i - j < local) | ((j - h) % stride == 0) | (h >= sparse))

    try:
        mask = torch.compile(create_block_mask)(rule, None, facts["heads"], shape.tokens, shape.tokens, device="cuda")
        compiled = torch.compile(flex_attention)
        return clock(lambda: compiled(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1]))
    except (RuntimeError, torch.cuda.OutOfMemoryError):
        return None
