"""What Triton's compiler takes for the kernels that later parts launch: a process for each package, all at once."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator

import torch

from benchmarks.gpu.cases import by_name
from benchmarks.gpu.device import Device

SERVED = ("grouped", "apart", "toy")
PACKED = ("ancestor", "toy")
FEW = 256  # keys of a step that several programs do not share: another kernel


def measure(device: Device, *, case: str, **_: object) -> Iterator[dict[str, object]]:
    """Seconds until all have been launched once. A new length compiles nothing: short sequences do."""
    facts = by_name(case)
    package = importlib.import_module(facts.module)
    tokens = 40 if device.toy else 1024
    inputs = [x.requires_grad_() for x in device.sequences(facts, 1, tokens)]
    begin = time.perf_counter()
    torch.autograd.grad(package.attention(*inputs).sum(), inputs)
    if case in PACKED:
        packed = [x.detach()[0].transpose(0, 1).contiguous().requires_grad_() for x in inputs]
        starts = device.ints(0, tokens)
        out = package.attention_varlen(*packed, starts, starts, tokens, tokens)
        torch.autograd.grad(out.sum(), packed)
    if case in SERVED:
        page = 16
        pages = -(-tokens // page)
        caches = device.random(2, pages, page, facts.kv_heads, facts.head_dim)
        table = torch.arange(pages, dtype=torch.int32, device=device.name)[None]
        for new, length in ((1, tokens), (1, min(tokens, FEW)), (tokens, tokens)):
            q = device.random(1, new, facts.heads, facts.head_dim)
            package.decode(q, caches[0], caches[1], table[:, : -(-length // page)], device.ints(length))
    device.wait()
    yield {"seconds": round(time.perf_counter() - begin, 2)}
