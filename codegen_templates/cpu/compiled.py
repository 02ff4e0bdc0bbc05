"""Attention on the CPU by the compiled kernels: their arguments, and the division of the work among threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..pattern import BLOCK, CAUSAL, CLASS_OF, CLASSES, SOFTCAP
from ..rules.heads import kv_head
from ..rules.tables import Table, build
from .library import library
from .workers import work

HAS_BANDS = any(rules["bands"] for rules in CLASSES)  # of distances in tokens, which the kernels do not know
TYPES = (torch.float32, torch.bfloat16, torch.float16)  # as c/tiles.h numbers them
PANEL = 16  # the gradients of a key are summed in rows of a multiple of this
FEW_PAIRS = 1 << 18  # token pairs, about a millisecond: not worth a second thread
MANY_PAIRS = 1 << 21  # a task

Job = TypeVar("Job", bound=tuple)


class Strided(ctypes.Structure):
    """A tensor [batch, heads, tokens, …]: its address and its strides."""

    _fields_ = (("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "head", "token")))

    @staticmethod
    def of(x: Tensor) -> Strided:
        return Strided(x.data_ptr(), *x.stride()[:3])


class Problem(ctypes.Structure):
    """The struct `Problem` of c/tiles.h."""

    _fields_ = (
        *((name, Strided) for name in ("q", "k", "v", "out", "lse", "dout", "dlse", "dq")),
        *((name, ctypes.c_int64) for name in ("type", "dim", "v_dim", "block", "causal")),
        *((name, ctypes.c_int64) for name in ("q_start", "q_len", "kv_start", "kv_len")),
        *((name, ctypes.c_int64) for name in ("before", "after", "sink", "first_row", "page_size")),
        *((name, ctypes.c_void_p) for name in ("pointers", "whole", "columns", "pages")),
        ("scale", ctypes.c_double),
        ("softcap", ctypes.c_double),
    )
    table: Table  # what the pointers point to


class Task(NamedTuple):
    """Some queries of a class, counted from the sequence's beginning."""

    pairs: int  # of tokens, about
    first: int
    last: int


class Position(NamedTuple):
    """The part of the pattern that the tensors hold: layer, first head, and ranges of tokens."""

    layer: int
    head_offset: int
    q_start: int
    q_len: int
    kv_start: int
    kv_len: int

    def klass(self, head: int) -> int:
        return CLASS_OF[self.layer][head + self.head_offset]

    def kv_head(self, head: int) -> int:
        return kv_head(head, self.head_offset)


def usable(q: Tensor) -> bool:
    """Whether the compiled kernels are available and the fastest choice for q's type."""
    if HAS_BANDS or q.dtype not in TYPES or (q.dtype != torch.float32 and has_half_products()):
        return False
    kernels = library()
    return kernels is not None and bool(kernels.attn_types() >> TYPES.index(q.dtype) & 1)


@cache
def has_half_products() -> bool:
    """Whether this CPU may multiply tiles of half precision, faster than the kernels, which widen them, do in fp32.
    Dot products of bf16 (AVX-512 bf16) are not: torch's own with them is no faster than its fp32."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return True
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return ask is not None and ask()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    place: Position,
    scale: float,
    heads: Sequence[int],
    pages: Tensor | None = None,
) -> None:
    """Output and LSE of these heads of q [batch, heads, q_len, dim], k and v [batch, kv_heads, kv_len, dim].

    With `pages`, int32 and contiguous, of one sequence, whose keys are in these of k and v [pages, kv_heads, page_size,
    dim]. The caller has checked that all pages exist.
    """
    tensors = {"q": q, "k": k, "v": v, "out": out, "lse": lse}
    classes = {place.klass(head) for head in heads}
    problems = {klass: _problem(klass, place, scale, tensors, pages) for klass in classes}
    run = library().attn_forward  # type: ignore[union-attr]

    def do(job: tuple[Task, int, int]) -> int:
        task, batch, head = job
        numbers = batch, head, place.kv_head(head), task.first, task.last
        return run(ctypes.byref(problems[place.klass(head)]), *map(ctypes.c_int64, numbers))

    jobs = [
        (task, batch, head)
        for head in heads
        for task in plan(place.klass(head), *place[2:])[1]
        for batch in range(q.shape[0])
    ]
    _share(do, jobs, [job[0].pairs for job in jobs])


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    place: Position,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk and dv, each like its tensor, summed in fp32. Each thread has sums of its own for a KV head."""
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    dout = dout if dout.stride(-1) == 1 else dout.contiguous()
    tensors = {"q": q, "k": k, "v": v, "out": out, "lse": lse, "dout": dout, "dq": dq}
    tensors |= {} if dlse is None else {"dlse": dlse}
    heads = range(q.shape[1])
    problems = {klass: _problem(klass, place, scale, tensors) for klass in {place.klass(head) for head in heads}}
    owners = [(batch, kv_head) for batch in range(k.shape[0]) for kv_head in range(k.shape[1])]
    parts = -(-torch.get_num_threads() // max(1, len(owners)))
    widths = [-(-x.shape[3] // PANEL) * PANEL for x in (k, v)]
    sums = [torch.zeros(parts, *k.shape[:3], width, dtype=torch.float32, device="cpu") for width in widths]
    run = library().attn_backward  # type: ignore[union-attr]
    tasks = {
        kv_head: [
            (task, head)
            for head in heads
            if place.kv_head(head) == kv_head
            for task in plan(place.klass(head), *place[2:])[1]
        ]
        for kv_head in range(k.shape[1])
    }

    def do(job: tuple[int, int, int]) -> int:
        part, batch, kv_head = job
        room = [ctypes.c_void_p(x[part, batch, kv_head].data_ptr()) for x in sums]
        failed = 0
        for task, head in tasks[kv_head][part::parts]:
            numbers = map(ctypes.c_int64, (batch, head, kv_head, task.first, task.last))
            failed |= run(ctypes.byref(problems[place.klass(head)]), *numbers, *room, *map(ctypes.c_int64, widths))
        return failed

    jobs = [(part, *owner) for owner in owners for part in range(parts)]
    _share(do, jobs, [sum(task.pairs for task, _ in tasks[kv_head][part::parts]) for part, _, kv_head in jobs])
    for grad, total in ((dk, sums[0]), (dv, sums[1])):
        grad.copy_((total.sum(0) if parts > 1 else total[0])[..., : grad.shape[3]])
    return dq, dk, dv


def _problem(
    klass: int, place: Position, scale: float, tensors: dict[str, Tensor], pages: Tensor | None = None
) -> Problem:
    """The kernels' argument; the tensors must outlive it. It keeps its table: `plan` may have dropped it by then, for
    those of other classes or since another thread made it too."""
    q, k = tensors["q"], tensors["k"]
    before, after = CLASSES[klass]["window"] or (0, 0)
    table, _ = plan(klass, *place[2:])
    pointers, whole, columns = table
    problem = Problem(
        **{name: Strided.of(x) for name, x in tensors.items()},
        type=TYPES.index(q.dtype),
        dim=q.shape[3],
        v_dim=tensors["v"].shape[3],
        block=BLOCK,
        causal=CAUSAL,
        q_start=place.q_start,
        q_len=place.q_len,
        kv_start=place.kv_start,
        kv_len=place.kv_len,
        before=before,
        after=after,
        sink=CLASSES[klass]["sink"] or 0,
        first_row=place.q_start // BLOCK,
        pointers=pointers.data_ptr(),
        whole=whole.data_ptr(),
        columns=columns.data_ptr(),
        pages=None if pages is None else pages.data_ptr(),
        page_size=k.shape[2],
        scale=scale,
        softcap=SOFTCAP,
    )
    problem.table = table
    return problem


@lru_cache(maxsize=128)
def plan(klass: int, q_start: int, q_len: int, kv_start: int, kv_len: int) -> tuple[Table, tuple[Task, ...]]:
    """The columns that a class's rows keep, of those that are there, and its queries, cut where many pairs have come
    together. Kept for the next layer and the next step."""
    rows = q_start // BLOCK, -(-(q_start + q_len) // BLOCK)
    table = _table(klass, *rows, kv_start // BLOCK, -(-(kv_start + kv_len) // BLOCK))
    pairs = table[0] * BLOCK**2
    parts = max(1, -(-int(pairs[-1]) // MANY_PAIRS))
    cuts = q_start // BLOCK + torch.searchsorted(pairs, pairs[-1] * torch.arange(1, parts, device="cpu") // parts)
    tokens = [q_start, *(cuts * BLOCK).clamp(q_start, q_start + q_len).tolist(), q_start + q_len]
    each = int(pairs[-1]) // parts
    return table, tuple(Task(each, first, last) for first, last in pairwise(tokens) if first < last)


@lru_cache(maxsize=128)
def _table(klass: int, first_row: int, rows: int, first_column: int, columns: int) -> Table:
    """The columns of `plan`, for all lengths that end in one block: a further token rarely changes them."""
    return build(klass, torch.arange(first_row, rows, device="cpu"), torch.arange(first_column, columns, device="cpu"))


def _share(do: Callable[[Job], int], jobs: list[Job], pairs: list[int]) -> None:
    """Do all jobs, the heaviest first, on more than one thread where that is worth it."""
    order = [jobs[n] for n in sorted(range(len(jobs)), key=lambda n: -pairs[n])]
    if any(list(map(do, order) if sum(pairs) < FEW_PAIRS else work(do, order))):
        raise MemoryError("no memory for the tiles of an attention")
