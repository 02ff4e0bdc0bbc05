"""What launches are told: what a backward pass reads, numbers beside tensors, and constants of the kernels."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch

from ..pattern import FORM, HEAD_DIM, V_HEAD_DIM
from . import arrays
from .kept import Launch
from .requests import LOG2_E, Requests, precision


class Rows(NamedTuple):
    """What a Hopper kernel over tiles of rows reads and writes, the forward's or dQ's."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    out: torch.Tensor  # written like q: the output, or dQ
    sums: torch.Tensor  # a number of each row: its LSE, or `log_sum` of `Backward`
    requests: Requests
    heads: arrays.Heads
    scale: float


class Backward(NamedTuple):
    """What a backward pass reads; tensors are [batch, heads, rows, width] or [batch, heads, rows]."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    dout: torch.Tensor
    log_sum: torch.Tensor  # of the rows' scores, in base 2
    delta: torch.Tensor  # what the softmax of a row subtracts from the gradient of its weights
    requests: Requests
    heads: arrays.Heads
    scale: float


def kind(q: torch.Tensor, requests: Requests) -> tuple[Any, ...]:
    """What a launch is compiled for."""
    starts = requests.q_starts, requests.kv_starts
    return q.dtype, tuple(x if x is None else x.dtype for x in starts), precision(q)


def lengths(requests: Requests, scale: float) -> tuple[float, ...]:
    return scale * LOG2_E, requests.q_len, requests.kv_len, requests.q_start, requests.kv_start


def row_strides(requests: Requests, log_sum: torch.Tensor) -> tuple[int, int]:
    return 0 if requests.are_packed else log_sum.stride(0), log_sum.stride(1)


def lie_alike(dk: torch.Tensor, dv: torch.Tensor) -> bool:
    """Whether the rows of dk and dv have the same strides; where they are of different widths, counted in rows."""
    if HEAD_DIM == V_HEAD_DIM:
        return dk.stride() == dv.stride()
    pairs = zip(dk.stride()[:-1], dv.stride()[:-1], strict=True)
    return all(x % HEAD_DIM == 0 and x // HEAD_DIM * V_HEAD_DIM == y for x, y in pairs)


def strides(requests: Requests, *tensors: torch.Tensor) -> list[int]:
    """Strides of batch, heads and rows. Packed sequences have a batch stride of 0: each sees all rows."""
    if requests.are_packed:
        return [stride for x in tensors for stride in (0, x.stride(1), x.stride(2))]
    return [stride for x in tensors for stride in x.stride()[:3]]


@cache
def dq_launch(device: torch.device, kind: tuple[Any, ...], tile: tuple[int, int, int, int, int], align: int) -> Launch:
    block_q, block_h, block_n, warps, stages = tile
    own = {"BLOCK_Q": block_q, "BLOCK_H": block_h, "BLOCK_N": block_n}
    return _launch(device, warps, stages, kind[2], ALIGN=align, IS_PACKED=kind[1][0] is not None, **own)


@cache
def dkdv_launch(
    device: torch.device,
    kind: tuple[Any, ...],
    tile: tuple[int, int, int, int],
    align: int,
    has_near: bool,
    has_strides: bool,
) -> Launch:
    block_m, block_n, warps, stages = tile
    own = {"BLOCK_M": block_m, "BLOCK_N": block_n, "HAS_NEAR": has_near, "HAS_STRIDES": has_strides}
    return _launch(device, warps, stages, kind[2], ALIGN=align, IS_PACKED=kind[1][0] is not None, **own)


@cache
def forward_launch(
    device: torch.device,
    dtypes: tuple[torch.dtype | None, ...],
    tile: tuple[int, int, int, int, int, int],
    page: int,
    align: int,
    precision: str,
    is_shared: bool,  # a kernel of its own, by the type of `shares`
) -> Launch:
    block_q, block_h, block_n, warps, stages, merged = tile
    own = {"BLOCK_Q": block_q, "BLOCK_H": block_h, "BLOCK_N": block_n, "PAGE": page, "MERGED": merged}
    own["IS_LOOKED_UP"] = FORM == "table" or page > 0
    return _launch(device, warps, stages, precision, ALIGN=align, IS_PACKED=len(dtypes) > 2, **own)


def _launch(device: torch.device, warps: int, stages: int, precision: str, **constants: int) -> Launch:
    """The launch of a kernel that reads keys and values in tiles."""
    usual = {"IS_LOOKED_UP": FORM == "table", "STAGES": stages, "PRECISION": precision} | constants
    return Launch(device, **usual, num_warps=warps, num_stages=stages, enable_fp_fusion=True)


@cache
def combine_launch(device: torch.device, dtype: torch.dtype, splits: int) -> Launch:
    return Launch(device, SPLITS=splits, num_warps=4, enable_fp_fusion=True)
