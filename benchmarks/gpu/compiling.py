"""Seconds to compile what later parts launch: a process for each package, and for each shape of a peer, all at
once. Later processes find it in the caches of Triton and of torch."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch

from benchmarks.gpu import peers, serving, steps, switch
from benchmarks.gpu.attention import both_ways
from benchmarks.gpu.cases import Case, by_name
from benchmarks.gpu.device import Device

FEW = 64  # keys of a step that several programs do not share: another kernel


def measure(device: Device, *, case: str, what: str = "", peer: str = "", **given: Any) -> Iterator[dict[str, object]]:
    """Seconds until all have been launched once. A new length compiles nothing of ours: short sequences do."""
    facts = by_name(case)
    begin = time.perf_counter()
    if peer:
        _peer(device, facts, peer, **given)
    else:
        ways = {"training": _training, "varlen": _packed, "paged": _paged, "decode": _decoding}
        ways |= {
            "launches": partial(_steps, serving.ways_of_merging),
            "sharing": partial(_steps, serving.ways_of_sharing),
        }
        way, _, family = what.partition(" by ")
        with switch.chosen(family or "triton"):
            ways[way](device, facts)
    device.wait()
    yield {"seconds": round(time.perf_counter() - begin, 2)}


def _training(device: Device, case: Case) -> None:
    """Direction by direction, each waited for: a kernel that hangs is named."""
    inputs = [x.requires_grad_() for x in device.sequences(case, 1, _tokens(device))]
    family = os.environ[switch.SWITCH]
    with steps.risky(switch.named(case, family, "forward")):
        out = _package(case).attention(*inputs)
        device.wait()
    with steps.risky(switch.named(case, family, "backward")):
        torch.autograd.grad(out.sum(), inputs)
        device.wait()


def _packed(device: Device, case: Case) -> None:
    inputs = device.sequences(case, 1, _tokens(device))
    packed = [x[0].transpose(0, 1).contiguous().requires_grad_() for x in inputs]
    starts = device.ints(0, _tokens(device))
    out = _package(case).attention_varlen(*packed, starts, starts, _tokens(device), _tokens(device))
    torch.autograd.grad(out.sum(), packed)


def _paged(device: Device, case: Case) -> None:
    _step(device, case, _tokens(device), _tokens(device))


def _decoding(device: Device, case: Case) -> None:
    for length in (_tokens(device), min(_tokens(device), FEW)):
        _step(device, case, 1, length)


def _steps(ways: Callable[..., dict[Any, Callable[[], object]]], device: Device, case: Case) -> None:
    for decode in ways(device, case, _package(case), 1, _tokens(device)).values():
        decode()


def _step(device: Device, case: Case, new: int, length: int) -> None:
    page = 16
    pages = -(-length // page)
    caches = device.random(2, pages, page, case.kv_heads, case.head_dim)
    table = torch.arange(pages, dtype=torch.int32, device=device.name)[None]
    _package(case).decode(device.random(1, new, case.heads, case.head_dim), *caches, table, device.ints(length))


def _tokens(device: Device) -> int:
    return 40 if device.toy else 1024


def _package(case: Case) -> ModuleType:
    return importlib.import_module(case.module)


def _peer(device: Device, case: Case, peer: str, *, batch: int, tokens: int, sizes: Sequence[int], **_: object) -> None:
    for name, make in peers.others(device, case, tokens, peer, sizes).items():
        call = make()
        for direction, inputs in both_ways(device.sequences(case, batch, tokens)):
            if peers.has(device, peer, name, direction):
                out = call(*inputs)
                if direction == "backward":
                    torch.autograd.grad(out, inputs, torch.ones_like(out))
