"""Calls of a package drawn at random. A kind of call is drawn first, and comes again with other contents, addresses,
modes and gradients: all that a recipe must tell from what it has, and all that it must not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from math import prod
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

PLACES = ["plain"] * 36 + [
    "offset",
    "odd",
    "swapped",
    "swapped",
    "gaps",
    "uneven",
    "expanded",
    "heads",
    "apart",
    "parameter",
]
MODES = [nullcontext, nullcontext, torch.no_grad, torch.inference_mode]


class Drawn(NamedTuple):
    call: Callable[..., Any]
    tensors: list[Tensor]  # q, k and v
    rest: list[Any]
    place: dict[str, Any]
    mode: Any
    way: int  # of differentiating

    def __call__(self) -> list[Tensor]:
        """Output, LSE, and gradients where they are asked for, once or twice."""
        with self.mode():
            out, lse = self.call(*self.tensors, *self.rest, return_lse=True, **self.place)
        leaves = {id(x): x for x in (*self.tensors, self.place.get("sinks")) if x is not None and x.requires_grad}
        if not out.requires_grad:
            return [out, lse]
        make = torch.Generator().manual_seed(self.way)
        dout, dlse = (torch.randn(x.shape, generator=make).to(x.dtype) for x in (out, lse))
        ways: list[list[Any]] = [[(out, dout)], [(out, dout), (lse, dlse)], [(lse, dlse)], [(out.sum(), None)]]
        of, weights = zip(*ways[self.way % 4], strict=True)
        found: list[Any] = [out, lse]
        for is_last in (False, True)[self.way // 4 :]:
            found += torch.autograd.grad(of, [*leaves.values()], weights, retain_graph=not is_last, allow_unused=True)
        return [x for x in found if x is not None]


def drawn(package: ModuleType, kind: Random, own: Random) -> Drawn:
    """A call of the kind that `kind` draws; `own` draws what two of a kind may differ in."""
    make = kind.choice([whole, whole, varlen, varlen, paged, decode])
    call, tensors, rest, place, trains = make(Sizes(package, kind, own), kind, own)
    tensors = tensors if trains else [x.detach() for x in tensors]
    place |= {"layer": own.randrange(len(package.pattern.CLASS_OF)) if kind.random() < 0.3 else 0}
    place["scale"] = kind.choice([None] * 16 + [0.25, 0.25, 0.0, -0.5, 1, torch.tensor(0.5)])
    if own.random() < 0.05:
        place["scale"] = 0.75
    if package.pattern.NEEDS_SINKS or kind.random() < 0.3:
        heads = tensors[0].shape[-2 if make is not whole else 1]
        place["sinks"] = sinks(heads, kind.choice(["plain", "offset", "apart", "half", "expanded"]))
    for x in (*tensors, *([place["sinks"]] if "sinks" in place else [])):
        if trains and x.is_leaf and own.random() < 0.7:
            x.requires_grad_()
    return Drawn(call, tensors, rest, place, own.choice(MODES), own.randrange(8))


class Sizes:
    """Numbers of a pattern, and which of its heads are present."""

    def __init__(self, package: ModuleType, kind: Random, own: Random) -> None:
        of, self.package = package.pattern, package
        self.dim, self.v_dim, share = of.HEAD_DIM, of.V_HEAD_DIM, of.HEADS // of.KV_HEADS
        self.heads, self.offset = kind.choice([(of.HEADS, 0), (of.HEADS, 0), (share, of.HEADS - share)])
        self.kv_heads = self.heads // share
        dtypes = [torch.float32, torch.float16, torch.bfloat16]
        self.dtype = kind.choice(dtypes) if own.random() < 0.9 else own.choice(dtypes)

    @property
    def place(self) -> dict[str, Any]:
        return {"head_offset": self.offset}


def whole(of: Sizes, kind: Random, own: Random) -> tuple[Any, ...]:
    batch, tokens = kind.choice([0, 1, 2, 2]), kind.choice([0, 1, 17, 65, 300])
    queries, how = kind.choice([tokens, tokens, 1, 0, tokens + 3]), [kind.choice(PLACES) for _ in range(3)]
    q = memory((batch, of.heads, queries, of.dim), of.dtype, how[0])
    k = memory((batch, of.kv_heads, tokens, of.dim), of.dtype, how[1])
    v = shared(k, kind) if of.dim == of.v_dim else None
    v = memory((batch, of.kv_heads, tokens, of.v_dim), of.dtype, how[2]) if v is None else v
    place = of.place
    if kind.random() < 0.25:
        place |= {"q_start": own.choice([3, 40]), "kv_start": kind.choice([0, 64])}
    return of.package.attention, [q, k, v], [], place, True


def varlen(of: Sizes, kind: Random, own: Random) -> tuple[Any, ...]:
    queries, keys = kind.choice([(70, 70), (70, 70), (9, 70), (0, 70), (70, 0)])
    requests, how = kind.choice([0, 1, 2, 3]), [kind.choice(PLACES) for _ in range(3)]
    q = memory((queries, of.heads, of.dim), of.dtype, how[0])
    k = memory((keys, of.kv_heads, of.dim), of.dtype, how[1])
    v = shared(k, kind) if of.dim == of.v_dim else None
    v = memory((keys, of.kv_heads, of.v_dim), of.dtype, how[2]) if v is None else v
    first = whole_numbers(cut(queries, requests, own), kind)
    second = first if queries == keys and kind.random() < 0.5 else whole_numbers(cut(keys, requests, own), kind)
    most = (queries, keys) if own.random() < 0.9 else (queries + 1, keys + 1)
    return of.package.attention_varlen, [q, k, v], [first, second, *most], of.place, True


def paged(of: Sizes, kind: Random, own: Random) -> tuple[Any, ...]:
    k, v, table, lengths = pages(of, kind, own)
    starts = cut(70, len(lengths), own)
    q = memory((70, of.heads, of.dim), of.dtype, kind.choice(PLACES))
    longest = max((b - a for a, b in pairwise(starts)), default=0)
    place = of.place | ({"max_q_len": kind.choice([70, 71, 80])} if kind.random() < 0.5 and longest < 70 else {})
    return of.package.attention_paged, [q, k, v], [table, lengths, whole_numbers(starts, kind)], place, False


def decode(of: Sizes, kind: Random, own: Random) -> tuple[Any, ...]:
    k, v, table, lengths = pages(of, kind, own)
    shape = len(lengths), kind.choice([0, 1, 1, 1, 2, 5]), of.heads, of.dim
    return of.package.decode, [memory(shape, of.dtype, kind.choice(PLACES)), k, v], [table, lengths], of.place, False


def pages(of: Sizes, kind: Random, own: Random) -> tuple[Tensor, ...]:
    """Caches of 12 pages, a table, and lengths."""
    page, requests, width = kind.choice([16, 16, 5]), kind.choice([0, 1, 2, 3]), kind.choice([1, 3, 40])
    how = kind.choice([how for how in PLACES if how != "apart"])
    k, v = (memory((12, page, of.kv_heads, dim), of.dtype, how) for dim in (of.dim, of.v_dim))
    table = whole_numbers([own.randrange(12) for _ in range(requests * width)], kind, is_list=False)
    lengths = whole_numbers([own.randint(0, page * width) for _ in range(requests)], kind)
    return k, v, table.view(requests, width), lengths


def cut(tokens: int, requests: int, own: Random) -> list[int]:
    """Where packed requests begin and the last one ends; some tokens may be of none."""
    found = sorted(own.randint(0, tokens) for _ in range(requests + 1))
    return [0, *found[1:-1], tokens] if requests and own.random() < 0.6 else found


def whole_numbers(numbers: Sequence[int], kind: Random, *, is_list: bool = True) -> Tensor:
    """A list, of 32 or 64 bits, sometimes at an odd address or with gaps."""
    found = torch.tensor(numbers, dtype=kind.choice([torch.int32, torch.int32, torch.int64]))
    how = kind.choice([""] * 8 + ["offset", "apart"]) if is_list else ""
    return torch.cat([found[:0].new_zeros(1), found])[1:] if how == "offset" else apart(found) if how else found


def sinks(heads: int, how: str) -> Tensor:
    if how == "expanded":
        return torch.zeros(1).expand(heads)
    found = torch.zeros(heads, dtype=torch.float16 if how == "half" else torch.float32)
    return torch.zeros(heads + 1)[1:] if how == "offset" else apart(found) if how == "apart" else found


def shared(k: Tensor, kind: Random) -> Tensor | None:
    """k itself or another tensor in its memory, where values are to lie there."""
    return kind.choice([None] * 6 + [k, k.detach()])


def apart(x: Tensor) -> Tensor:
    """The same numbers, no two of which lie side by side."""
    return torch.stack([x, x], -1)[..., 0]


def memory(shape: tuple[int, ...], dtype: torch.dtype, how: str) -> Tensor:
    """A tensor of this shape, somehow laid out: at another address, with dimensions swapped or repeated, with gaps."""
    if how in ("offset", "odd"):
        first = 16 if how == "offset" else 1  # numbers: a multiple of 16 bytes, or none
        return torch.zeros(prod(shape) + first, dtype=dtype)[first:].view(shape)
    if how == "swapped":
        return torch.zeros(*shape[:-3], shape[-2], shape[-3], shape[-1], dtype=dtype).transpose(-3, -2)
    if how in ("gaps", "uneven"):
        wide = torch.zeros(*shape[:-2], shape[-2] + 3, shape[-1] + (8 if how == "gaps" else 3), dtype=dtype)
        return wide[..., : shape[-2], : shape[-1]]
    if how in ("expanded", "heads"):
        of = 0 if how == "expanded" else 1
        return torch.zeros(*shape[:of], 1, *shape[of + 1 :], dtype=dtype).expand(shape)
    found = torch.zeros(shape, dtype=dtype)
    return apart(found) if how == "apart" else torch.nn.Parameter(found) if how == "parameter" else found
