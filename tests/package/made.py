"""Small packages of every kind of pattern, and dense attention in fp64 to hold them against."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

import patterncc
from patterncc import language, reference
from patterncc.language.model import Pattern

HEAD = "pattern: 1\nname: small\nheads: 4\nkv_heads: 2\nhead_dim: 16\nblock: 16\npromises: {}\n"
PATTERNS = {
    "strided": HEAD + "shards: [{heads: all, local: 2, stride: 4, offset: h}]",
    "tokens": HEAD + "shards: [{heads: all, local: 21 tokens, sink: 5 tokens}]",
    "window": HEAD + "shards: [{heads: all, local: 37 tokens}]",
    "some_dense": HEAD + "shards: [{heads: 1, dense: true}, {heads: rest, local: 1, sink: 1}]",
    "ranges": HEAD + "shards: [{heads: all, local: 1, strides: [{every: 2, from: 1, to: 4}, {every: 5, from: 4}]}]",
    "dilated": HEAD + "shards: [{heads: all, strides: [{every: 3, anchor: query, offset: h, width: 2}]}]",
    "chunks": HEAD + "shards: [{heads: 0-1, chunk: 3, sink: 5 tokens}, {heads: rest, chunk: 2, stride: 5}]",
    "bands": HEAD + "shards: [{heads: 0-1, local: 9 tokens, strides: [{every: 1, from: 37 tokens, to: 60 tokens}]}, "
    "{heads: rest, stride: 3, strides: [{every: 1, from: 20 tokens}]}]",
    "capped": HEAD + "softcap: 1.5\nshards: [{heads: 0, dense: true}, {heads: rest, local: 21 tokens, stride: 3}]",
    "globals": HEAD + "shards: [{heads: all, local: 1, globals: {rows: [2, 5], columns: [1]}}]",
    "drawn": HEAD + "shards: [{heads: all, local: 1, random: {blocks: 2, seed: h}}]",
    "masked": HEAD + "shards: [{heads: 0-1, mask: mask.npy}, {heads: rest, mask: mask.npy, local: 3 tokens}]",
    "starved": HEAD + "shards: [{heads: 0, strides: [{every: 4, offset: 2}]}, {heads: rest, stride: 7, offset: 3}]",
    "both_ways": HEAD + "causal: false\nshards: [{heads: all, local: {before: 2, after: 3}, globals: {columns: [0]}}]",
    "both_ways_tokens": HEAD
    + "causal: false\nshards: [{heads: all, local: {before: 20 tokens, after: 9 tokens}, sink: 3 tokens}]",
    "one_kv_head": "pattern: 1\nname: small\nheads: 3\nkv_heads: 1\nhead_dim: 24\nblock: 32\npromises: {}\n"
    + "shards: [{heads: all, local: 1, stride: 3, offset: h}]",
    "values": HEAD + "v_head_dim: 40\nshards: [{heads: all, local: 21 tokens, stride: 4, offset: h}]",
    "two_layers": HEAD + "layers: 2\ndense_layers: 1\nshards: [{heads: all, local: 1, stride: 3, offset: g}]",
}
CAUSAL = [name for name, text in PATTERNS.items() if "causal: false" not in text]

# Errors by norm, relative to fp64 attention of the same (already rounded) numbers.
TOLERANCE = {
    torch.float64: 1e-13,  # some hundreds of sums and products of order one, 2e-16 each
    torch.float32: 2e-6,  # the same at 6e-8 each
    torch.float16: 1e-3,  # the result, and the weights of one product, are rounded to 11 bits: twice 2**-11
    torch.bfloat16: 8e-3,  # the same with 8 bits
}


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="patterncc-small-"))
    np.save(folder / "mask.npy", np.random.default_rng(5).random((9, 8)) < 0.4)
    return folder


def made_mask(name: str, mask: np.ndarray) -> None:
    """A mask's file, for the patterns that name it."""
    np.save(_folder() / name, mask)


@cache
def compiled(text: str, plan: str | None = None) -> tuple[Pattern, ModuleType]:
    """The pattern of a file with this text, and its package; `text` may be one of PATTERNS by name."""
    file = _folder() / "small.yaml"
    file.write_text(PATTERNS.get(text, text))
    return language.load(file), patterncc.compile(file, plan=plan).load()


def tensors(
    pattern: Pattern,
    q_len: int,
    kv_len: int | None = None,
    *,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    layer: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of a layer, normal numbers: the same for the same lengths."""
    of = pattern.shape(layer)
    kv_len = q_len if kv_len is None else kv_len
    torch.manual_seed(q_len * 10007 + kv_len)
    keys = of.kv_heads, kv_len
    shapes = (of.heads, q_len, of.head_dim), (*keys, of.head_dim), (*keys, of.v_head_dim)
    return tuple(torch.randn(batch, *shape).to(dtype) for shape in shapes)  # type: ignore[return-value]


def run(
    attend: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    inputs: Sequence[Tensor],
    weights: tuple[Tensor, Tensor | None],
) -> dict[str, Tensor]:
    """Output, LSE, and the gradients of q, k and v when out and LSE weigh so much (None: the LSE is not used)."""
    q, k, v = (x.detach().requires_grad_() for x in inputs)
    out, lse = attend(q, k, v)
    dout, dlse = weights
    pairs = [(out, dout.to(out.dtype))] + ([] if dlse is None else [(lse, dlse.to(lse.dtype))])
    torch.autograd.backward([x for x, _ in pairs], [x for _, x in pairs])
    found = {"out": out, "lse": lse, "dq": q.grad, "dk": k.grad, "dv": v.grad}
    return {name: x.detach() for name, x in found.items() if x is not None}


def weights_like(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Normal gradients for out, as wide as v, and for the LSE, rounded like the inputs."""
    q, v = inputs[0], inputs[2]
    return torch.randn(*q.shape[:3], v.shape[3]).to(q.dtype), torch.randn(q.shape[:3])


def exact(
    pattern: Pattern,
    inputs: Sequence[Tensor],
    weights: tuple[Tensor, Tensor | None],
    *,
    layer: int = 0,
    head_offset: int = 0,
    scale: float | None = None,
) -> dict[str, Tensor]:
    """`run` of dense attention in fp64 under the definition's mask."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return reference.attention(pattern, q, k, v, layer=layer, head_offset=head_offset, scale=scale)

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


def cancelling(
    inputs: Sequence[Tensor], weights: tuple[Tensor, Tensor | None], true: dict[str, Tensor], scale: float | None
) -> dict[str, float]:
    """The norm of what cancels in dq and dk, about: of p * dp - p * delta, the terms that delta sums, times k or q.
    Where rows have a key or two next to nothing is left of it, but its rounding is: that of a sum goes with the sum of
    the terms' absolute values (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1)."""
    q, k, _ = (x.double() for x in inputs)
    delta = float((true["out"] * weights[0].double()).abs().sum(-1).norm())
    delta *= q.shape[-1] ** -0.5 if scale is None else abs(scale)
    return {name: delta * float(x.norm(dim=-1).square().mean().sqrt()) for name, x in (("dq", k), ("dk", q))}


def check(
    found: dict[str, Tensor], true: dict[str, Tensor], tolerance: float, least: dict[str, float] | None = None
) -> None:
    errors = {name: off(x, true[name], (least or {}).get(name, 0.0)) for name, x in found.items()}
    assert set(found) == set(true)
    assert max(errors.values()) <= tolerance, errors
