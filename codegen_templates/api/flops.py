"""Formulas of torch.utils.flop_counter for the operators: they count the products of the token pairs that are kept."""

from __future__ import annotations

import sys
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..pattern import BLOCK, CAUSAL, CLASS_OF
from ..rules.masks import keeps
from ..rules.tables import build

TOGETHER = 1 << 22  # token pairs looked at together
_known: dict[str, str] = {}  # operators by their full names: which formula is theirs
_registered: set[str] = set()


def counted(operator: str, formula: str) -> None:
    """Count this operator of torch's by one of FORMULAS, once anybody counts."""
    _known[operator] = formula


def register() -> None:
    """Give the formulas to torch's counter, where it has been imported: that takes longer than a package's import. Also
    to counters that have begun."""
    counter: Any = sys.modules.get("torch.utils.flop_counter")
    if counter is None or _registered.issuperset(_known):
        return
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    begun = [mode.counter.flop_registry for mode in _get_current_dispatch_mode_stack() if hasattr(mode, "counter")]
    for operator in set(_known) - _registered:
        namespace, _, name = operator.partition("::")
        packet, formula = getattr(getattr(torch.ops, namespace), name), FORMULAS[_known[operator]]
        counter.register_flop_formula(packet, get_raw=True)(formula)
        for registry in begun:
            registry[packet] = formula
        _registered.add(operator)


def _attention(q: Tensor, k: Tensor, v: Tensor, *place: Any, products: tuple[int, int], **_: Any) -> int:
    layer, _scale, head_offset, q_start, kv_start = place[:5]
    pairs = _pairs(layer, head_offset, q.shape[1], q_start, q.shape[2], kv_start, k.shape[2])
    return q.shape[0] * _work(pairs, products, q, v)


def _varlen(q: Tensor, k: Tensor, v: Tensor, *rest: Any, products: tuple[int, int], **_: Any) -> int:
    starts, kv_starts, most, kv_most, layer, _scale, head_offset = rest[:7]
    lengths = zip(_lengths(starts, most), _lengths(kv_starts, kv_most), strict=True)
    pairs = (_pairs(layer, head_offset, q.shape[1], b - a, a, 0, b) for a, b in lengths)
    return _work(sum(pairs), products, q, v)


def _paged(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **_: Any) -> int:
    table, seq_lens, starts, most, layer, _scale, head_offset = rest[:7]
    room = table.shape[1] * k.shape[1]
    keys = [room] * len(seq_lens) if _is_unknown(seq_lens) else seq_lens.tolist()
    lengths = zip(_lengths(starts, most), keys, strict=True)
    pairs = (_pairs(layer, head_offset, q.shape[1], b - a, a, 0, b) for a, b in lengths)
    return _work(sum(pairs), (1, 1), q, v)


def _of_gradient(formula: Any, *tensors: Any, **options: Any) -> int:
    """The formula of an operator's backward, whose arguments begin with dout, dlse, q, k, v, out, lse: three products
    along q's dimension (scores again, dq, dk) and two along v's (dv and the gradient of the weights)."""
    return formula(*tensors[2:5], *tensors[7:], products=(3, 2), **options)


FORWARD = {"attention": partial(_attention, products=(1, 1)), "attention_varlen": partial(_varlen, products=(1, 1))}
FORMULAS: dict[str, Any] = {
    **FORWARD,
    "attention_backward": partial(_of_gradient, _attention),
    "attention_varlen_backward": partial(_of_gradient, _varlen),
    "attention_paged": _paged,
}


def _work(pairs: int, products: tuple[int, int], q: Tensor, v: Tensor) -> int:
    """The operations of `products` = (products along q's and k's dimension, products along v's), a multiply and an add
    each."""
    return 2 * pairs * (products[0] * q.shape[-1] + products[1] * v.shape[-1])


def _is_unknown(x: Tensor) -> bool:
    """Whether the numbers of a tensor are not there: a fake one, or one on meta."""
    return x.device.type == "meta" or type(x) is not Tensor


def _lengths(starts: Tensor, most: int) -> list[int]:
    """The lengths of all sequences; where they are not known, the longest possible ones."""
    if _is_unknown(starts):
        return [most] * (len(starts) - 1)
    return [b - a for a, b in pairwise(starts.tolist())]


def _pairs(layer: int, head_offset: int, heads: int, q_start: int, q_len: int, kv_start: int, kv_len: int) -> int:
    """Token pairs that the heads present keep of these queries and keys."""
    classes = CLASS_OF[layer][head_offset : head_offset + heads]
    return sum(_kept(klass, q_start, q_len, kv_start, kv_len) for klass in classes)


@lru_cache(maxsize=256)
def _kept(klass: int, q_start: int, q_len: int, kv_start: int, kv_len: int) -> int:
    """The token pairs that one class keeps: whole blocks by their sizes, the others token by token."""
    if not q_len or not kv_len:
        return 0
    q_stop, kv_stop = q_start + q_len, kv_start + kv_len
    rows = torch.arange(q_start // BLOCK, -(-q_stop // BLOCK), device="cpu")
    columns = torch.arange(kv_start // BLOCK, -(-kv_stop // BLOCK), device="cpu")
    pointers, whole, j = build(klass, rows, columns)
    i = rows.repeat_interleave(pointers.diff())
    slot = torch.arange(len(j), device="cpu") - pointers[:-1].repeat_interleave(pointers.diff())
    is_whole = slot < whole.repeat_interleave(pointers.diff())
    if CAUSAL:
        is_whole &= j < i
    sizes = [
        (((x + 1) * BLOCK).clamp(max=stop) - (x * BLOCK).clamp(min=start))[is_whole].long()
        for x, start, stop in ((i, q_start, q_stop), (j, kv_start, kv_stop))
    ]
    total = int((sizes[0] * sizes[1]).sum())
    o = torch.arange(BLOCK, device="cpu")
    for some_i, some_j in zip(*(x[~is_whole].split(max(1, TOGETHER // BLOCK**2)) for x in (i, j)), strict=True):
        t, u = (some_i[:, None] * BLOCK + o)[:, :, None], (some_j[:, None] * BLOCK + o)[:, None, :]
        inside = (t >= q_start) & (t < q_stop) & (u >= kv_start) & (u < kv_stop)
        total += int((keeps(klass, t, u) & inside).sum())
    return total
