"""Block-sparse attention on the CPU: gather the kept blocks, attend to them in dense pieces, merge the pieces.

Time and memory go with the kept blocks: nothing is ever as large as queries times keys.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..launch.outputs import like_output
from ..pattern import BLOCK
from . import compiled, odd
from .attend import attend, attend_backward
from .dense import attend_dense, dense_heads
from .keys import Gathered, Rows
from .library import asked
from .pieces import Place, Step, steps
from .plan import TOGETHER, Group, plan
from .sinks import gradient
from .workers import work

Indices = tuple[int, int, int, int]  # layer, head_offset, q_start, kv_start


def forward(q: Tensor, k: Tensor, v: Tensor, **place: Any) -> tuple[Tensor, Tensor]:
    """Output like q, and LSE [batch, heads, q_len], of q [batch, heads, q_len, dim], k and v [batch, kv_heads, kv_len,
    dim]. `place`: layer, scale and head_offset, and where the first tokens stand, q_start and kv_start."""
    attend = partial(_forward, **place)
    found = attend(q, k, v)
    return odd.forward(attend, q, k, v, found) if odd.has_nan(found[0]) else found


def backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    sinks: Tensor | None = None,
    **place: Any,
) -> tuple[Tensor, ...]:
    """dq, dk and dv, each like its tensor, and the gradient of sinks, if they are in out and lse; `place` as above.
    Half precision is multiplied and summed in fp32."""
    differentiate, tensors = partial(_backward, **place), (q, k, v, out, lse, dout, dlse)
    grads = differentiate(*tensors)
    grads = odd.backward(partial(_forward, **place), differentiate, tensors) if odd.has_nan(*grads) else grads
    return grads if sinks is None else (*grads, gradient(out, lse, dout, dlse, sinks))


def _forward(
    q: Tensor, k: Tensor, v: Tensor, *, layer: int, scale: float, head_offset: int, q_start: int, kv_start: int
) -> tuple[Tensor, Tensor]:
    """`forward` for finite tensors: NaN in keys or values that a row does not keep may reach its output."""
    asked()  # also where neither way is taken: a switch that is misspelt is said
    out = like_output(q)
    lse = torch.empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32), device="cpu")
    place = layer, head_offset, q_start, kv_start
    present = q.shape[1], head_offset, q_start, q.shape[2], kv_start, k.shape[2]
    dense = dense_heads(layer, *present) if scale > 0 else ()
    attend_dense(q, k, v, out, lse, scale, dense, head_offset)
    rest = [head for head in range(q.shape[1]) if head not in dense]
    if rest and compiled.usable(q):
        where = compiled.Position(layer, head_offset, q_start, q.shape[2], kv_start, k.shape[2])
        compiled.forward(q, k, v, out, lse, where, scale, rest)
    elif rest:
        attend_to(Rows(k), Rows(v), k.shape[2], q, out, lse, scale, place, dense)
    return out, lse


def attend_to(
    keys: Rows,
    values: Rows,
    kv_len: int,
    q: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    place: Indices,
    done: tuple[int, ...] = (),
) -> None:
    """Attention of q [batch, heads, q_len, dim] over keys and values, wherever they lie, into out and lse: of all heads
    but those that are `done`."""

    def do(task: tuple[Group, slice]) -> None:
        group, batch = task
        gathered = Gathered(keys, values, batch.start)
        for span in group.spans:
            at = Place(group, span, batch)
            q_span, out_span, lse_span = at.read(q), at.room(out, lse.dtype), at.room(lse, lse.dtype)
            if not span.covered:
                out_span.zero_()
                lse_span.fill_(float("-inf"))
            for calls, is_first in ((span.first_calls, True), (span.more_calls, False)):
                for step in (step for call in calls for step in steps(call, group, batch.stop - batch.start)):
                    queries = step.flat(step.read(q_span))
                    part = attend(queries, *gathered.at(step), step.mask(q.dtype), scale, step.call.causal)
                    _merge(step, out_span, lse_span, *part, is_first)
            at.write(out, out_span)
            at.write(lse, lse_span)

    for _ in work(do, _tasks(q, kv_len, *place, done)):
        pass


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    *,
    layer: int,
    scale: float,
    head_offset: int,
    q_start: int,
    kv_start: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """`backward` for finite tensors: NaN may reach gradients of pairs that are not kept."""
    if compiled.usable(q):
        where = compiled.Position(layer, head_offset, q_start, q.shape[2], kv_start, k.shape[2])
        return compiled.backward(q, k, v, out, lse, dout, dlse, where, scale)
    exact = lse.dtype
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    blocks = -(-k.shape[2] // BLOCK)
    tasks = _tasks(q, k.shape[2], layer, head_offset, q_start, kv_start)
    each = work if len(tasks) > 1 else map
    keys, values = (Rows(x) for x in each(lambda x: x.to(exact), (k, v)))

    def do(task: tuple[Group, slice]) -> tuple[Tensor, Tensor]:
        group, batch = task
        gathered = Gathered(keys, values, batch.start)
        shape = batch.stop - batch.start, len(group.kv_heads), blocks
        dk_part, dv_part = (torch.zeros(*shape, BLOCK * x.shape[3], dtype=exact, device="cpu") for x in (k, v))
        for span in group.spans:
            at = Place(group, span, batch)
            spans = [at.read(x).to(exact) for x in (q, out, lse, dout)]
            dlse_span = None if dlse is None else at.read(dlse)
            dq_span = at.room(dq, exact).zero_()
            calls = span.first_calls + span.more_calls
            for step in (step for call in calls for step in steps(call, group, batch.stop - batch.start)):
                queries, *rows = (step.flat(step.read(x)) for x in spans)
                dlse_rows = None if dlse_span is None else step.flat(step.read(dlse_span))
                mask, causal = step.mask(exact), step.call.causal
                grads = attend_backward(queries, *gathered.at(step), *rows, dlse_rows, mask, scale, causal)
                dq_rows, dk_keys, dv_keys = grads
                total = step.read(dq_span)
                total += step.unflat(dq_rows, dq_span)
                if step.box is None:  # else it is a view
                    step.write(dq_span, total)
                step.add_keys(dk_part, dk_keys)
                step.add_keys(dv_part, dv_keys)
            at.write(dq, dq_span)
        return dk_part, dv_part

    parts = list(each(do, tasks))

    def add(task: tuple[Tensor, int]) -> None:
        """All parts, in their order, into dk or dv."""
        x, which = task
        total = torch.zeros(*x.shape[:2], blocks, BLOCK * x.shape[3], dtype=exact, device="cpu")
        for (group, batch), grads in zip(tasks, parts, strict=True):
            total[batch].index_add_(1, group.kv_heads, grads[which])
        x.copy_(total.unflatten(-1, (BLOCK, x.shape[3])).flatten(2, 3)[:, :, : x.shape[2]])

    for _ in each(add, ((dk, 0), (dv, 1))):
        pass
    return dq, dk, dv


def _merge(step: Step, out: Tensor, lse: Tensor, out_part: Tensor, lse_part: Tensor, is_first: bool) -> None:
    """Merge a part's result into `out` and `lse`, which then are the softmax over the keys of all parts so far."""
    out_part, lse_part = step.unflat(out_part, out), step.unflat(lse_part, lse)
    if is_first:
        step.write(out, out_part)
        step.write(lse, lse_part)
        return
    out_sum, lse_sum = step.read(out), step.read(lse)
    weight = torch.sigmoid(lse_part - lse_sum)  # of the part, which has keys for every query: its lse is finite
    out_sum.lerp_(out_part.to(out.dtype), weight[..., None])
    torch.logaddexp(lse_sum, lse_part, out=lse_sum)
    if step.box is None:  # else these are views
        step.write(out, out_sum)
        step.write(lse, lse_sum)


def _tasks(
    q: Tensor, kv_len: int, layer: int, head_offset: int, q_start: int, kv_start: int, done: tuple[int, ...] = ()
) -> list[tuple[Group, slice]]:
    """The tasks of the threads: a task is some heads of some sequences."""
    tasks = []
    for group in plan(layer, q.shape[1], head_offset, q_start, q.shape[2], kv_start, kv_len, done):
        heads = len(group.heads) * len(group.heads[0])
        step = max(1, TOGETHER // max(1, heads * q.shape[2]))
        tasks += [(group, slice(n, min(n + step, q.shape[0]))) for n in range(0, q.shape[0], step)]
    return tasks
