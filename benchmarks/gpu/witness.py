"""What is right: attention by the definition of the pattern in fp64, of some rows of a long sequence, of all of a short
one; and of every row and key of a long one that it attends to what it should (`everywhere`). It knows `cases` and
nothing of the packages; what it has found wrong is not timed."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.gpu import everywhere
from benchmarks.gpu.cases import Case
from benchmarks.gpu.device import Device

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # of [batch, heads, tokens, head_dim]
PAIRS = 1 << 22  # of tokens of one head, in fp64 at a time
MEANS = 1e-4  # at least, of means: a block of 64 tokens among a million moves them by 8e-3


class WrongError(Exception):
    """A result that is not attention over the pattern."""


def chosen_rows(tokens: int) -> Tensor:
    """Rows to look at: runs at the beginning, in the middle and at the end, across borders of blocks."""
    run = max(1, min(48, tokens // 3, PAIRS // (3 * tokens)))
    starts = {0, max(0, tokens // 2 - run // 2), tokens - run}
    return torch.cat([torch.arange(start, start + run) for start in sorted(starts)]).unique()


def check_mask(case: Case, package: ModuleType, tokens: int) -> None:
    """WrongError unless the package's `dense_mask` is the definition: all of a short sequence, the end of a long."""
    short = min(tokens, 5 * case.block + 3)
    for length, rows in ((short, short), (tokens, max(1, min(64, tokens, PAIRS // 4 // tokens)))):  # on the CPU
        t, u = torch.arange(length - rows, length)[:, None], torch.arange(length)[None]
        wanted = case.keeps(torch.arange(case.heads)[:, None, None], t, u)
        if not torch.equal(package.dense_mask(rows, length), wanted):
            raise WrongError(f"{case.module}.dense_mask({rows}, {length}) is not what the pattern says")


def check_short(case: Case, device: Device, attention: Attention, tokens: int) -> None:
    """Forward and backward of two short sequences in all their rows."""
    inputs = [x.requires_grad_() for x in device.sequences(case, 2, tokens)]
    check_sequences(case, device.tolerance, attention, *inputs, rows=torch.arange(tokens))


def check_sequences(
    case: Case, tolerance: float, attention: Attention, q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None = None
) -> float:
    """The greatest error of some rows of the last sequence, and of the gradients that come from them where q, k and v
    ask for any; WrongError when that is too large, or when a row or key of any sequence is not what it should be."""
    check_everywhere(case, tolerance, attention, q, k, v)
    rows = (chosen_rows(q.shape[2]) if rows is None else rows).to(q.device)
    if not q.requires_grad:
        with torch.no_grad():
            out = attention(q, k, v)
        return within(tolerance, "result", forward_squares(case, q[-1], k[-1], v[-1], out[-1][:, rows], rows))
    out = attention(q, k, v)
    gradient = torch.zeros_like(out)
    gradient[-1][:, rows] = torch.randn_like(out[-1][:, rows])
    grads = torch.autograd.grad(out, (q, k, v), gradient)
    q, k, v = (x[-1].detach() for x in (q, k, v))
    forward = forward_squares(case, q, k, v, out[-1][:, rows].detach(), rows)
    backward = backward_squares(case, q, k, v, gradient[-1], rows, [x[-1] for x in grads])
    return within(tolerance, "result or gradient", forward, backward)


def check_everywhere(case: Case, tolerance: float, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> None:
    """WrongError unless every row attends to the keys that it keeps, and their gradients come from it, where q, k and v
    ask for gradients."""
    squares = everywhere.forward_squares(case, attention, q, k, v)
    within(max(tolerance, MEANS), "result of all rows", *squares)
    if q.requires_grad:
        squares = everywhere.backward_squares(case, attention, q, k, v)
        within(max(tolerance, MEANS), "gradient of all rows and keys", *squares)


def within(tolerance: float, what: str, *squares: Tensor) -> float:
    """The greatest error by norm, relative, to two digits; WrongError when it is too large, or NaN.

    squares: [..., 2], sums of squares of what is off and of what is wanted.
    """
    off, wanted = torch.cat([x.reshape(-1, 2) for x in squares]).unbind(1)
    errors = (off / wanted).sqrt()
    worst = float(errors[errors.nan_to_num(torch.inf).argmax()])
    if not worst < tolerance:
        raise WrongError(f"{what}: relative error {worst:.1e}; rounding explains {tolerance:.0e}")
    return float(f"{worst:.1e}")


def forward_squares(case: Case, q: Tensor, k: Tensor, v: Tensor, out: Tensor, rows: Tensor) -> Tensor:
    """What `within` takes, [2]. q [heads, tokens, head_dim], k and v likewise; out [heads, rows, head_dim]."""
    squares = torch.zeros(2, dtype=torch.float64, device=q.device)
    for head in range(case.heads):
        wanted = _weights(case, head, q, k, rows) @ v[_kv(case, head)].double()
        squares += _squares(out[head], wanted)
    return squares


def backward_squares(
    case: Case, q: Tensor, k: Tensor, v: Tensor, dout: Tensor, rows: Tensor, grads: list[Tensor]
) -> Tensor:
    """[3, 2]: of dq, dk and dv, all of them, where `dout` [heads, tokens, head_dim] is 0 but in `rows`."""
    squares = torch.zeros(3, 2, dtype=torch.float64, device=q.device)
    share = case.heads // case.kv_heads
    for kv_head in range(case.kv_heads):
        keys, values = k[kv_head].double(), v[kv_head].double()
        dk, dv = torch.zeros_like(keys), torch.zeros_like(values)
        for head in range(kv_head * share, (kv_head + 1) * share):
            weights, do = _weights(case, head, q, k, rows), dout[head, rows].double()
            dweights = do @ values.T
            dscores = weights * (dweights - (weights * dweights).sum(-1, keepdim=True)) * case.head_dim**-0.5
            dv += weights.T @ do
            dk += dscores.T @ q[head, rows].double()
            dq = torch.zeros_like(q[head], dtype=torch.float64)  # rows without a gradient of their own get none
            dq[rows] = dscores @ keys
            squares[0] += _squares(grads[0][head], dq)
        squares[1] += _squares(grads[1][kv_head], dk)
        squares[2] += _squares(grads[2][kv_head], dv)
    return squares


def _squares(got: Tensor, wanted: Tensor) -> Tensor:
    return torch.stack(((got.double() - wanted).square().sum(), wanted.square().sum()))


def _weights(case: Case, head: int, q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
    """What the rows give each key: [rows, keys] in fp64. The last query stands where the last key does."""
    keys = k.shape[1]
    kept = case.keeps(head, (rows + keys - q.shape[1])[:, None], torch.arange(keys, device=q.device)[None])
    scores = q[head, rows].double() @ k[_kv(case, head)].double().T * case.head_dim**-0.5
    return scores.masked_fill(~kept, float("-inf")).softmax(-1)


def _kv(case: Case, head: int) -> int:
    return head // (case.heads // case.kv_heads)
