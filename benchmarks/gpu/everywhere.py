"""Every row and every key of long sequences, without the square of their length.

Where all queries are 0, all kept keys weigh the same: a result is the mean of the kept values, and the pattern of
`cases` is a window and a stride of blocks, whose sums are differences of running sums. A block too much, too few or in
another place moves a mean of n values by about the square root of block / n of it, which no rounding does.

With v_u = a_u (1, …, 1), weights w_t = 1 / n_t and s_t = Σ dout_t, the gradients are

    dv_u = Σ w_t dout_t over the rows t that keep u
    dq_t = s_t (mean of a k - mean of a · mean of k) / √head_dim

What dk would be is 0; it comes out of the same loops as dv.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.gpu.cases import Case

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def forward_squares(case: Case, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Iterator[Tensor]:
    """[tokens, 2] for each sequence and head: sums of squares of what is off in a row, and of what is wanted."""
    k, v = k.detach(), v.detach()  # who compiles has compiled for tensors without gradients
    with torch.no_grad():
        out = attention(torch.zeros_like(q), k, v)
    for sequence in range(len(q)):
        for head in range(case.heads):
            wanted = means(case, head, v[sequence, _kv(case, head)])
            yield _squares(out[sequence, head], wanted, _square(wanted))


def backward_squares(case: Case, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Iterator[Tensor]:
    """Squared errors of dq's rows, and of dv's keys."""
    zero, k = torch.zeros_like(q).requires_grad_(), k.detach().requires_grad_()
    a = v.detach()[..., :1]
    v = a.expand(v.shape).contiguous().requires_grad_()
    out = attention(zero, k, v)
    dout = 1 + torch.randn_like(out)  # so that no row's sum is 0
    dq, dk, dv = (x.detach() for x in torch.autograd.grad(out, (zero, k, v), dout))
    if not bool((dk == 0).all()):
        yield torch.full((1, 2), float("inf"), dtype=torch.float64, device=q.device)
    for sequence in range(len(q)):
        for kv_head in range(case.kv_heads):
            share = case.heads // case.kv_heads
            weight, key = a[sequence, kv_head].double(), k[sequence, kv_head].detach().double()
            total = torch.zeros_like(key)
            for head in range(kv_head * share, (kv_head + 1) * share):
                own, each = dout[sequence, head].double(), means(case, head, weight)
                together, apart = means(case, head, weight * key), means(case, head, key).mul_(each)
                scale = own.sum(1) * case.head_dim**-0.5
                wanted = (together - apart).mul_(scale[:, None])
                size = scale.square() * (_square(together) + _square(apart))  # the difference may vanish
                yield _squares(dq[sequence, head], wanted, size)
                total += kept_by(case, head, own.div_(counts(case, head, own)))
            yield _squares(dv[sequence, kv_head], total, _square(total))


def means(case: Case, head: int, values: Tensor) -> Tensor:
    """The mean of the values [tokens, n] over the keys that each query token keeps, in fp64."""
    return _sums(case, head, values).div_(counts(case, head, values))


def counts(case: Case, head: int, like: Tensor) -> Tensor:
    """How many keys each of as many query tokens keeps, [tokens, 1]."""
    return _sums(case, head, torch.ones_like(like[:, :1]))


def _sums(case: Case, head: int, values: Tensor) -> Tensor:
    """Over the kept keys: those of the own block up to the diagonal, of the window before it, and of the stride."""
    blocks = _in_blocks(case, values)
    within = blocks.cumsum(1)
    every = within[:, -1].clone()
    i = torch.arange(len(every), device=values.device)
    first = (i - case.local + 1).clamp(min=0)  # column of the window
    if _is_dense(case, head):
        before = _running(every)[i]
    else:
        before = _running(every)[i] - _running(every)[first] + _running(every * _is_far(case, head, i))[first]
    return within.add_(before[:, None]).flatten(0, 1)[: len(values)]


def kept_by(case: Case, head: int, values: Tensor) -> Tensor:
    """The sum of the values [tokens, n] of the query tokens that keep each key token, in fp64."""
    blocks = _in_blocks(case, values)
    within = blocks.flip(1).cumsum(1).flip(1)
    sums = _running(within[:, 0])
    j = torch.arange(len(within), device=values.device)
    last = (j + case.local).clamp(max=len(within))  # beyond the rows in whose window the column is
    beyond = sums[-1] - sums[last]
    if not _is_dense(case, head):
        beyond = beyond * _is_far(case, head, j)
    return within.add_((sums[last] - sums[j + 1] + beyond)[:, None]).flatten(0, 1)[: len(values)]


def _running(rows: Tensor) -> Tensor:
    """The sums of the first 0, 1, 2, … rows."""
    return torch.cat((torch.zeros_like(rows[:1]), rows.cumsum(0)))


def _in_blocks(case: Case, values: Tensor) -> Tensor:
    """fp64 [blocks, block, n], zeros after the last."""
    missing, values = -len(values) % case.block, values.double()
    whole = torch.cat((values, values.new_zeros(missing, values.shape[1]))) if missing else values
    return whole.view(-1, case.block, values.shape[1])


def _is_far(case: Case, head: int, columns: Tensor) -> Tensor:
    """Whether the stride keeps each column, [columns, 1]."""
    return case.is_far(head, columns)[:, None]


def _is_dense(case: Case, head: int) -> bool:
    return head >= case.heads - case.dense_heads


def _kv(case: Case, head: int) -> int:
    return head // (case.heads // case.kv_heads)


def _squares(got: Tensor, wanted: Tensor, size: Tensor) -> Tensor:
    return torch.stack((_square(got.double() - wanted), size), 1)


def _square(rows: Tensor) -> Tensor:
    return torch.linalg.vecdot(rows, rows)
