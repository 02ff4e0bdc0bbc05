"""What every test of a package stands on: a pattern compiled once, inputs for it, and dense attention in fp64.

`tests/kernels/held.py` and `tests/package/made.py` add the patterns and tolerances of kernels and of the CPU path.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from patterncc import language, pipeline, reference
from patterncc.language.model import Pattern
from patterncc.runtime.cache import Cache
from patterncc.runtime.load import load

Attend = Callable[[Tensor, Tensor, Tensor], "tuple[Tensor, Tensor]"]  # output and LSE
Weights = tuple[Tensor, "Tensor | None"]  # gradients of output and LSE; None: the LSE is not used


def small(name: str, head_dim: int, block: int) -> str:
    """A small pattern as a file: two query heads for each KV head, and other blocks for each head."""
    return f"""\
pattern: 1
name: {name}
heads: 4
kv_heads: 2
head_dim: {head_dim}
block: {block}
shards: [{{heads: all, local: 2, stride: 4, offset: h}}]
promises: {{}}
"""


class Made(NamedTuple):
    """A compiled pattern and what it means."""

    pattern: Pattern
    package: ModuleType

    def part(self, name: str) -> ModuleType:
        """A module of the package."""
        return importlib.import_module(f".{name}", self.package.__name__)


@cache
def folder() -> Path:
    """Where the masks are that patterns name."""
    path = Path(tempfile.mkdtemp(prefix="patterncc-made-"))
    np.save(path / "mask.npy", np.random.default_rng(5).random((9, 8)) < 0.4)
    return path


@cache
def made(text: str, plan: str | None = None) -> Made:
    """The pattern of a file with this text, and its package."""
    pattern = language.loads(text, folder=folder())
    return Made(pattern, load(Cache.of_user().store(pipeline.generate(pattern, plan))))


PLACES = ["gaps", "tokens first", "odd", "dense"]


def placed(x: Tensor, how: str = "gaps") -> Tensor:
    """A view equal to x [batch, heads, rows, head_dim], with NaN before, after and between what it shows.

    gaps: rows, heads and batches apart, every stride a multiple of 16 bytes; odd: no stride is; tokens first: rows
    outside, heads inside; dense: contiguous.
    """
    batch, heads, rows, dim = x.shape
    if how == "dense":
        buffer = x.new_full((x.numel() + 4096,), float("nan"))
        view = buffer[2048 : 2048 + x.numel()].view(x.shape)
    elif how == "tokens first":
        buffer = x.new_full((batch, rows + 128, heads, dim), float("nan"))
        view = buffer[:, 64 : 64 + rows].transpose(1, 2)
    else:
        buffer = x.new_full((batch + 1, heads + 1, rows + 129, dim + (8 if how == "gaps" else 3)), float("nan"))
        view = buffer[:batch, :heads, 64 : 64 + rows, :dim]
    view.copy_(x)
    return view


def tensors(
    pattern: Pattern,
    q_len: int,
    kv_len: int | None = None,
    *,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    how: str | None = None,
    heads: range | None = None,
    layer: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of a layer, normal numbers: the same for the same lengths, and what torch draws afterwards too.
    `heads` are the query heads present; `how` they are placed, None: alone in their memory."""
    of = pattern.shape(layer)
    kv_len = q_len if kv_len is None else kv_len
    heads = range(of.heads) if heads is None else heads
    shared = len({head // of.group for head in heads})
    torch.manual_seed(q_len * 10007 + kv_len)
    shapes = ((len(heads), q_len), (shared, kv_len), (shared, kv_len))
    widths = of.head_dim, of.head_dim, of.v_head_dim
    drawn = [torch.randn(batch, *shape, width).to(dtype) for shape, width in zip(shapes, widths, strict=True)]
    return tuple(x if how is None else placed(x, how) for x in drawn)  # type: ignore[return-value]


def weights(q: Tensor, lse_shape: Sequence[int] | None = None, v_dim: int = 0) -> tuple[Tensor, Tensor]:
    """Normal gradients of output, as wide as q or `v_dim` and rounded like q, and of the LSE, which stay away from 0:
    they are all that is left where a query keeps one key, and an error must have something to be relative to."""
    make = torch.Generator().manual_seed(q.numel())
    dlse = torch.randn(*(q.shape[:3] if lse_shape is None else lse_shape), generator=make)
    shape = *q.shape[:-1], v_dim or q.shape[-1]
    return torch.randn(shape, generator=make).to(q.dtype), dlse + torch.where(dlse < 0, -0.5, 0.5)


def run(attend: Attend, inputs: Sequence[Tensor], weights: Weights) -> dict[str, Tensor]:
    """Output, LSE, and the gradients of q, k and v when output and LSE weigh so much."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out, lse = attend(*leaves)
    dout, dlse = weights
    pairs = [(out, dout.to(out.dtype))] + ([] if dlse is None else [(lse, dlse.to(lse.dtype))])
    grads = torch.autograd.grad([x for x, _ in pairs], leaves, [x for _, x in pairs], allow_unused=True)
    found = {"out": out, "lse": lse} | dict(zip(("dq", "dk", "dv"), grads, strict=True))
    return {name: x.detach() for name, x in found.items() if x is not None}


def gradients(attend: Attend, inputs: Sequence[Tensor], dout: Tensor, dlse: Tensor | None) -> tuple[Tensor, ...]:
    """dq, dk and dv of `run`."""
    found = run(attend, inputs, (dout, dlse))
    return tuple(found[name] for name in ("dq", "dk", "dv"))


def exact(pattern: Pattern, inputs: Sequence[Tensor], weights: Weights, **options: object) -> dict[str, Tensor]:
    """`run` of dense attention in fp64 under the definition's mask."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return reference.attention(pattern, q, k, v, **options)  # type: ignore[arg-type]

    # A query that keeps nothing has the LSE -inf whatever q is: fp64 must not be asked for the slope of that.
    return run(attend, [x.double() for x in inputs], weights)


def off(found: Tensor, true: Tensor, least: float = 0.0) -> float:
    """The error by norm over all finite numbers, relative to the norm of the true ones or to `least` if that is more;
    infinite if the numbers that are not finite differ, or any is NaN."""
    odd = ~true.isfinite()
    if found.shape != true.shape or found.isnan().any() or not torch.equal(found[odd], true[odd].to(found.dtype)):
        return float("inf")
    if (~found[~odd].isfinite()).any():
        return float("inf")
    error, size = (found.double() - true.double())[~odd].norm(), max(float(true.double()[~odd].norm()), least)
    return float(error / size) if size else float(error)


def check(
    found: dict[str, Tensor], true: dict[str, Tensor], tolerance: float, least: dict[str, float] | None = None
) -> None:
    """All errors of `run` against `exact` are within the tolerance."""
    errors = {name: off(x, true[name], (least or {}).get(name, 0.0)) for name, x in found.items()}
    assert set(found) == set(true)
    assert max(errors.values()) <= tolerance, errors
