"""What serves: decoding and mixed batches over a paged cache, and packed sequences of unequal length."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import attention, witness
from benchmarks.gpu.cases import Case, by_name
from benchmarks.gpu.device import Device, rate

PAGE = 16  # tokens: vLLM's default
SPLITS = (4, 8, 16, 32, 64)  # programs that share a tile
Row = dict[str, object]


def measure(device: Device, *, what: str, case: str, folder: object = None, **given: Any) -> Iterator[Row]:
    """The rows of one cell."""
    facts = by_name(case)
    package = importlib.import_module(facts.module)
    ways = {"decode": decode, "launches": launches, "sharing": sharing, "varlen": varlen, "paged": paged}
    yield from ways[what](device, facts, package, **given)


@dataclass(frozen=True)
class Cache:
    """Keys and values of some requests in pages that lie in disorder: [pages, page size, kv_heads, head_dim]."""

    k: Tensor
    v: Tensor
    table: Tensor  # int32 [requests, pages of the longest]
    lengths: Tensor  # int32 [requests]

    @classmethod
    def filled(cls, device: Device, case: Case, lengths: Sequence[int]) -> Cache:
        torch.manual_seed(0)
        most = -(-max(lengths) // PAGE)
        count = len(lengths) * most
        k, v = (device.random(count, PAGE, case.kv_heads, case.head_dim) for _ in range(2))
        table = torch.randperm(count, device=device.name).to(torch.int32).view(len(lengths), most)
        return cls(k, v, table, device.ints(*lengths))

    def of(self, request: int) -> tuple[Tensor, Tensor]:
        """Its keys and its values in their order: [kv_heads, tokens, head_dim]."""
        pages, length = self.table[request].long(), int(self.lengths[request])
        k, v = (x[pages].flatten(0, 1)[:length].transpose(0, 1) for x in (self.k, self.v))
        return k, v


def decode(device: Device, case: Case, package: ModuleType, *, requests: int, tokens: int) -> Iterator[Row]:
    """One token a request. Bytes are those of the keys and values that some query head of their KV head keeps. A server
    replays a captured graph, and so does `graph_ms`; `ms` is what the GPU takes of a call."""
    cache = Cache.filled(device, case, (tokens,) * requests)
    q = device.random(requests, 1, case.heads, case.head_dim)

    def call() -> Tensor:
        return package.decode(q, cache.k, cache.v, cache.table, cache.lengths)

    out, last = call(), torch.zeros(1, dtype=torch.int64, device=device.name)
    squares: list[Tensor] = []
    for request in range(requests):
        result = out[request].transpose(0, 1)
        squares.append(witness.forward_squares(case, q[request].transpose(0, 1), *cache.of(request), result, last))
    error = witness.within(device.tolerance, "a token", *squares)
    heads, u = torch.arange(case.heads)[:, None], torch.arange(tokens)
    kept = case.keeps(heads, tokens - 1, u).view(case.kv_heads, -1, tokens).any(1).sum().item()
    size = requests * kept * case.head_dim * 2 * cache.k.element_size()
    times = device.alternate({"call": call})["call"]
    row: Row = {"error": error, **times.row(), "kept_bytes": size}
    seconds = times.median
    if not device.toy:
        try:
            replayed = device.alternate({"graph": captured(call)})["graph"]
        except RuntimeError as error:
            row["graph_note"] = str(error).splitlines()[0][:120]
        else:
            row |= replayed.row("graph_")
            seconds = replayed.median
    yield {**row, "tb_per_s": rate(size, seconds)}


def launches(device: Device, case: Case, package: ModuleType, *, requests: int, tokens: int) -> Iterator[Row]:
    """The same steps with the keys of a tile split among fewer and more programs, merged by the last of them in one
    launch, or by a second launch; a row for each number of programs, the first with as many as the package takes. A
    result is compared with that of one program."""
    ways = ways_of_merging(device, case, package, requests, tokens)
    whole = ways.pop((1, 1))()[0].double()
    for splits in dict.fromkeys(splits for splits, _ in ways):
        calls = {name: ways[splits, n + 1] for n, name in enumerate(("one", "two"))}
        off = [torch.stack([(call()[0] - whole).square().sum(), whole.square().sum()]) for call in calls.values()]
        row: Row = {"splits": splits, "error": witness.within(device.tolerance, f"{splits} programs", *off)}
        times = device.alternate(calls if device.toy else {name: captured(call) for name, call in calls.items()})
        row |= {key: value for name in calls for key, value in times[name].graph(name).items()}
        yield row | {"two_over_one": round(times["two"].median / times["one"].median, 3)}


def ways_of_merging(
    device: Device, case: Case, package: ModuleType, requests: int, tokens: int
) -> dict[tuple[int, int], Callable[[], tuple[Tensor, Tensor]]]:
    """A step by the programs that share a tile, 1 first and then as many as the package takes, and by launches."""
    decode, parts = stepping(device, case, package, requests, tokens)
    usual = parts.whole_splits((0, 0, case.heads), requests, 1, tokens, torch.device(device.name))
    many = dict.fromkeys((usual, *(SPLITS[:1] if device.toy else SPLITS)))
    return {(1, 1): partial(decode, splits=1)} | {
        (splits, n): partial(decode, splits=splits, launches=n) for splits in many if splits > 1 for n in (1, 2)
    }


def sharing(device: Device, case: Case, package: ModuleType, *, requests: int, tokens: int) -> Iterator[Row]:
    """The same steps with near keys loaded once for all query heads of a KV head, and by each class of them. `saved` is
    the share of the loads that this saves."""
    calls = ways_of_sharing(device, case, package, requests, tokens)
    shared, apart = (call()[0].double() for call in calls.values())
    error = witness.within(
        device.tolerance, "shared", torch.stack([(shared - apart).square().sum(), apart.square().sum()])
    )
    saved = importlib.import_module(f"{package.__name__}.launch.sharing").saved
    times = device.alternate(calls if device.toy else {name: captured(call) for name, call in calls.items()})
    row: Row = {"saved": round(saved((0, 0, case.heads), -(-tokens // case.block)), 3), "error": error}
    row |= {key: value for name in calls for key, value in times[name].graph(name).items()}
    yield row | {"apart_over_shared": round(times["apart"].median / times["shared"].median, 3)}


def ways_of_sharing(
    device: Device, case: Case, package: ModuleType, requests: int, tokens: int
) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """A step with near keys shared, and apart, each with as many programs as the package takes for it."""
    decode, parts = stepping(device, case, package, requests, tokens)
    sizes = (0, 0, case.heads), requests, 1, tokens, torch.device(device.name)
    return {
        "shared": partial(decode, splits=parts.shared_splits(*sizes)),
        "apart": partial(decode, splits=parts.whole_splits(*sizes)),
    }


def stepping(
    device: Device, case: Case, package: ModuleType, requests: int, tokens: int
) -> tuple[Callable[..., tuple[Tensor, Tensor]], ModuleType]:
    """The launcher of one step, without any choice of programs, and the module that makes that choice."""
    forward, parts = (importlib.import_module(f"{package.__name__}.launch.{name}") for name in ("forward", "parts"))
    cache = Cache.filled(device, case, (tokens,) * requests)
    q = device.random(requests, 1, case.heads, case.head_dim)
    how = {"layer": 0, "scale": case.head_dim**-0.5, "head_offset": 0}
    return partial(forward.decode, q, cache.k, cache.v, cache.table, cache.lengths, **how), parts


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The launches of the call as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def varlen(device: Device, case: Case, package: ModuleType, *, lengths: Sequence[int]) -> Iterator[Row]:
    """Packed sequences forward and backward, in alternation with the same sequences one by one."""
    torch.manual_seed(0)
    bounds = [0, *accumulate(lengths)]
    starts = device.ints(*bounds)
    spans = [slice(first, stop) for first, stop in pairwise(bounds) if stop > first]
    inputs = [device.random(bounds[-1], n, case.head_dim) for n in (case.heads, case.kv_heads, case.kv_heads)]

    def packed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return package.attention_varlen(q, k, v, starts, starts, max(lengths), max(lengths))

    def apart(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        each = ([x[span].transpose(0, 1)[None] for x in (q, k, v)] for span in spans)
        return torch.cat([package.attention(*one)[0].transpose(0, 1) for one in each])

    rows = [witness.chosen_rows(span.stop - span.start).to(device.name) for span in spans]
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = packed(*leaves)
    gradient = torch.zeros_like(out)
    for span, own in zip(spans, rows, strict=True):
        gradient[span][own] = torch.randn_like(gradient[span][own])
    grads = torch.autograd.grad(out, leaves, gradient)
    forward, backward = (torch.zeros(n, 2, dtype=torch.float64, device=device.name) for n in (1, 3))
    for span, own in zip(spans, rows, strict=True):
        q, k, v, dout, result, *parts = (x[span].transpose(0, 1) for x in (*inputs, gradient, out.detach(), *grads))
        forward += witness.forward_squares(case, q, k, v, result[:, own], own)
        backward += witness.backward_squares(case, q, k, v, dout, own, parts)
    error = witness.within(device.tolerance, "packed sequences", forward, backward)
    for direction, tensors in attention.both_ways(inputs):
        calls = {"packed": attention.call_of(packed, tensors), "apart": attention.call_of(apart, tensors)}
        times = device.alternate(calls)
        flops = sum(attention.flops(case, 1, length, direction) for length in lengths)
        yield {
            "direction": direction,
            "head_dim": case.head_dim,
            "error": error,
            **times["packed"].row(),
            **times["apart"].row("apart_"),
            "tflops": rate(flops, times["packed"].median),
        }


def paged(
    device: Device, case: Case, package: ModuleType, *, queries: Sequence[int], lengths: Sequence[int]
) -> Iterator[Row]:
    """One launch for requests that decode, that are in the middle of their prompt, and at its beginning."""
    cache = Cache.filled(device, case, lengths)
    bounds = [0, *accumulate(queries)]
    q, starts = device.random(bounds[-1], case.heads, case.head_dim), device.ints(*bounds)

    def call() -> Tensor:
        places = cache.table, cache.lengths, starts
        return package.attention_paged(q, cache.k, cache.v, *places, max_q_len=max(queries))

    out = call()
    squares: list[Tensor] = []
    for request in range(len(queries)):
        span = slice(*bounds[request : request + 2])
        own, result = q[span].transpose(0, 1), out[span].transpose(0, 1)
        rows = witness.chosen_rows(own.shape[1]).to(device.name)
        squares.append(witness.forward_squares(case, own, *cache.of(request), result[:, rows], rows))
    error = witness.within(device.tolerance, "mixed batch", *squares)
    times = device.alternate({"call": call})["call"]
    pairs = sum(case.pairs(n) - case.pairs(n - new) for n, new in zip(lengths, queries, strict=True))
    shape: Row = {"direction": "forward", "head_dim": case.head_dim, "requests": len(queries), "new_tokens": bounds[-1]}
    yield {**shape, "error": error, **times.row(), "tflops": rate(4 * pairs * case.head_dim, times.median)}
