"""Attention of new queries over the keys that a bank holds, and over new keys that it does not hold yet."""

from __future__ import annotations

import torch
from torch import Tensor

from ..api.merge import combine
from ..cpu.attend import Mask, attend
from ..cpu.sinks import with_sinks
from ..pattern import V_HEAD_DIM
from .bank import Bank


def attend_held(bank: Bank, q: Tensor, t: Tensor, scale: float, sinks: Tensor | None) -> Tensor:
    """Output of a bank's queries [rows, query heads, n, dim], at t [rows, n], over the keys that it holds; the sinks of
    all rows [rows, query heads, 1] are in the softmax's sum."""
    return _with_sinks(bank, *_attend_held(bank, q, t, scale), sinks)


def attend_held_and_new(
    bank: Bank,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    odd: Tensor,
    last: Tensor,
    t: Tensor,
    scale: float,
    sinks: Tensor | None,
) -> Tensor:
    """`attend_held` over the new keys [rows, n, dim] too, which the bank does not hold yet, each query up to its own
    key. `last` and `odd` of the new keys are as a bank keeps them."""
    later = torch.ones(t.shape[1], t.shape[1], dtype=torch.bool, device=t.device).triu_(1)
    new = _attend(q, k, v, odd, later | (last[:, :, None] < t[:, None, :, None]), scale)
    return _with_sinks(bank, *combine(*zip(_attend_held(bank, q, t, scale), new, strict=True), packed=False), sinks)


def _with_sinks(bank: Bank, out: Tensor, lse: Tensor, sinks: Tensor | None) -> Tensor:
    return out if sinks is None else with_sinks(out, lse, bank.pick(sinks))[0]


def _attend_held(bank: Bank, q: Tensor, t: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output and LSE over what the bank holds."""
    dropped = bank.last[:, :, None] < t[:, None, :, None]
    return _attend(q, bank.k, bank.v, bank.odd[:, : bank.used], dropped, scale)


def _attend(q: Tensor, k: Tensor, v: Tensor, odd: Tensor, dropped: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """q [rows, query heads, n, dim] over k and v [rows, keys, dim] but where `dropped` [rows, classes, n, keys]; NaN
    where any of these keys is odd [rows, keys]."""
    if not k.shape[1]:
        return q.new_zeros(*q.shape[:-1], V_HEAD_DIM), q.new_full(q.shape[:-1], float("-inf"), dtype=torch.float32)
    bias = torch.where(dropped, float("-inf"), odd[:, None, None])
    bias, empty = (x.expand(-1, q.shape[1], *x.shape[2:]).flatten(1, 2)[:, None] for x in (bias, dropped.all(-1)))
    out, lse = attend(q.flatten(1, 2)[:, None], k[:, None], v[:, None], Mask(bias, empty), scale)
    return out.view(*q.shape[:-1], V_HEAD_DIM), lse.view(q.shape[:-1])
