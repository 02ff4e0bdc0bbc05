"""The calls that binaries are shipped for, as calls of a package's own launchers on small tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from types import ModuleType
from typing import Any

from patterncc.codegen.cache_kinds import Part, cache_kinds

TORCH_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
LENGTH = 256  # of sequences: more than a tile has rows
PAGES = (16, 64)  # tokens of a page
SPLITS = (1, 2, 4, 8, 16, 32, 64)  # programs that share the keys of a tile
HIP_RANGE = 1 << 31  # bytes: Triton compiles anew for a larger tensor, on AMD's GPUs


def usual_calls(package: ModuleType, arch: str, dtype: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(purpose, callable) for every kind of KV head: calls on whole tiles and on single queries, of aligned tensors."""
    import torch

    class OnGpu(torch.Tensor):
        """A tensor in this process's memory that launchers take for one of a GPU."""

        is_cuda = True  # type: ignore[assignment]

    share = package.pattern.HEADS // package.pattern.KV_HEADS
    dim, v_dim = package.pattern.HEAD_DIM, package.pattern.V_HEAD_DIM
    kind: torch.dtype = getattr(torch, TORCH_DTYPES[dtype])
    forward, backward = package.launch.forward, package.launch.backward
    items = package.launch.items
    items.LEAST_ROWS, items.MOST_SLOTS = 0.5, LENGTH  # short as they are, columns have several items

    def empty(*shape: int, dtype: torch.dtype = kind) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype).as_subclass(OnGpu)

    def ints(*numbers: int) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int32)

    q, k = (empty(1, n, LENGTH, dim) for n in (share, 1))
    v, out = (empty(1, n, LENGTH, v_dim) for n in (1, share))
    lse = empty(1, share, LENGTH, dtype=torch.float32)
    packed = [x[0].transpose(0, 1).contiguous() for x in (q, k, v, out)]
    ends, requests = ints(0, LENGTH), ints(LENGTH)
    lengths = {"max_seqlen_q": LENGTH, "max_seqlen_k": LENGTH}
    sizes = [1, HIP_RANGE] if arch.startswith("gfx") else [1]
    if package.pattern.NEEDS_SINKS:
        sinks, of_sinks = empty(share), package.launch.sinks
        yield "", partial(of_sinks.put, out, lse, sinks)
        yield "varlen", partial(of_sinks.put, packed[3], lse[0], sinks, ends)
        yield "", partial(of_sinks.gradient, lse, lse, sinks)
    for layer, head_offset in distinct_heads(package):
        place = {"layer": layer, "scale": 1.0, "head_offset": head_offset}
        start = {"q_start": 0, "kv_start": 0}
        yield "", partial(forward.forward, q, k, v, **place, **start)
        yield "varlen", partial(forward.forward_varlen, *packed[:3], ends, ends, **lengths, **place)
        near = [(1, 1)] if shares(package, arch, layer, head_offset) else []
        for n in (1, 2, *near):
            words = "one query" + parts_text(n)
            yield words, partial(forward.forward, q[:, :, :1], k, v, **place, **start, splits=n)
        for dlse, more in ((None, ""), (lse, "LSE's gradient")):
            yield more, partial(backward.backward, q, k, v, out, lse, out, dlse, **place, **start)
            rows = lse[0], packed[3], None if dlse is None else lse[0]
            words = f"varlen, {more}" if more else "varlen"
            yield words, partial(backward.backward_varlen, *packed, *rows, ends, ends, **lengths, **place)
        for page, size in product(PAGES, sizes):
            caches = [empty(1 + size // (page * width * kind.itemsize), page, 1, width) for width in (dim, v_dim)]
            table = torch.zeros(1, LENGTH // page, dtype=torch.int32)
            words = f"page {page}" + ", large cache" * (size > 1)
            paged = partial(forward.forward_paged, packed[0], *caches, table, requests, ends, **place)
            step = partial(forward.decode, packed[0][None, :1], *caches, table, requests, **place)
            for n in SPLITS:
                yield f"paged, {words}{parts_text(n)}", partial(paged, max_q_len=LENGTH, splits=n)
            for n in (*SPLITS, *near):
                yield f"decode, {words}{parts_text(n)}", partial(step, splits=n)
    if package.launch.configs.merges(arch, 1):  # else torch's operators compute what a cache holds
        package.api.paths.steps = lambda _like: package.launch.cache
        for cache, part in cache_kinds(package.pattern).items():
            for n in SPLITS[:2]:
                yield cache.purpose(n), partial(step_of, package, kind, part, n)


def step_of(package: ModuleType, kind: Any, part: Part, splits: int) -> None:
    """A step of one token of a new cache, by so many programs that share the keys of a tile."""
    import torch

    pattern, configs = package.pattern, package.launch.configs
    about = {"layer": part.layer, "head_offset": part.first, "heads": part.heads, "dtype": kind}
    sinks = torch.empty(part.heads, dtype=kind) if pattern.NEEDS_SINKS else None
    kv_heads = part.heads * pattern.KV_HEADS // pattern.HEADS
    shapes = (part.heads, pattern.HEAD_DIM), (kv_heads, pattern.HEAD_DIM), (kv_heads, pattern.V_HEAD_DIM)
    newest = [torch.empty(1, n, 1, width, dtype=kind) for n, width in shapes]
    own, configs.splits = configs.splits, lambda *_: splits
    try:
        package.KVCache(1, **about).step(*newest, sinks=sinks)
    finally:
        configs.splits = own


def parts_text(splits: int | tuple[int, int]) -> str:
    """Words for programs that share keys.

    >>> parts_text(1), parts_text(2), parts_text((1, 1))
    ('', ', 2 parts', ', near keys shared')
    """
    if isinstance(splits, tuple):
        return ", near keys shared"
    return f", {splits} parts" if splits > 1 else ""


def shares(package: ModuleType, arch: str, layer: int, head_offset: int) -> bool:
    """Whether the query heads of this KV head may load near keys together."""
    sharing, configs = package.launch.sharing, package.launch.configs
    heads = layer, head_offset, package.pattern.HEADS // package.pattern.KV_HEADS
    return configs.merges(arch, 1) and sharing.near(heads) > 0 and sharing.most(heads) <= configs.FEW_ROWS


def distinct_heads(package: ModuleType) -> list[tuple[int, int]]:
    """One KV head of each kind that kernels treat differently, as (layer, first query head).

    Kinds differ in how many query heads share a tile, which strides dK and dV have, whether all columns are kept, and
    whether near ones are loaded together. A KV head is never split over devices.
    """
    pattern, found = package.pattern, dict[tuple[int, tuple[bool, ...], bool, bool], tuple[int, int]]()
    share = pattern.HEADS // pattern.KV_HEADS
    for layer in (n for n, row in enumerate(pattern.CLASS_OF) if row):  # those of other shapes have no heads here
        for head in range(0, pattern.HEADS, share):
            classes = package.launch.arrays.present(layer, head, share)
            strides = (any(period[klass] for klass in classes) for period in package.kernels.row_map.STRIDES)
            kind = (
                package.launch.arrays.group_size(classes, head),
                tuple(strides),
                package.launch.arrays.are_dense((layer, head, share)),
                package.launch.sharing.near((layer, head, share)) > 0,
            )
            found.setdefault(kind, (layer, head))
    return list(found.values())
