"""Small packages of every kind of pattern for the CPU path, and its tolerances against dense attention in fp64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tests.harness import Made, check, exact, folder, made, off, run, tensors, weights  # noqa: F401 (all from here)

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
    "scaled": HEAD + "scale: 0.7\nshards: [{heads: 0, dense: true}, {heads: rest, local: 21 tokens, stride: 3}]",
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


def made_mask(name: str, mask: np.ndarray) -> None:
    """A mask's file, for the patterns that name it."""
    np.save(folder() / name, mask)


def compiled(text: str, plan: str | None = None) -> Made:
    """The pattern of a file with this text, and its package; `text` may be one of PATTERNS by name."""
    return made(PATTERNS.get(text, text), plan)


def weights_like(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Gradients of output and LSE for these inputs."""
    return weights(inputs[0], v_dim=inputs[2].shape[-1])


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
