"""Peers that are packages of their own, where they can be imported: none is part of this repository, and one that is
not there leaves its cells empty, with the reason.

DKernel (github.com/linxihui/dkernel): where a copy is at hand, `pip install --no-deps --target FOLDER PATH_OF_DKERNEL`,
and FOLDER on PYTHONPATH, let it take part. FlashAttention-4 (`flash-attn-4`) and `flash-sparse-attn` likewise.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.gpu.cases import Case
from benchmarks.gpu.device import Device
from benchmarks.gpu.witness import Attention


class MissingPeerError(Exception):
    """A peer that is not here, or does not have what is compared."""


def imported(name: str, title: str) -> ModuleType:
    """The peer's module; MissingPeerError says why there is none."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # DKernel asks for its own metadata as it is imported, others for a driver
        raise MissingPeerError(f"{title} cannot be imported: {type(error).__name__}: {error}") from error


def dkernel(device: Device, case: Case, tokens: int) -> dict[str, Callable[[], Attention]]:
    """Its `SparseAttention` over our block mask. Where query heads share keys they are repeated, as its manual says."""
    module = imported("dkernel", "DKernel")

    def make() -> Attention:
        row = torch.arange(-(-tokens // case.block))
        heads = torch.arange(case.heads)[:, None, None]
        kept = case.keeps_block(heads, row[:, None], row[None]) & (row[None] <= row[:, None])
        sparse = module.SparseAttention(case.block, kept.to(torch.uint8), causal=True, seq_dim=2).to(device.name)
        share = case.heads // case.kv_heads
        if share == 1:
            return sparse
        return lambda q, k, v: sparse(q, k.repeat_interleave(share, 1), v.repeat_interleave(share, 1))

    return {"dkernel": make}


def flash_sparse(device: Device, case: Case, tokens: int) -> dict[str, Callable[[], Attention]]:
    """flash-sparse-attn with our mask, token by token, as its first versions take it. Later ones have a window, and a
    threshold below which weights are left out: neither is a block mask."""
    function = imported("flash_sparse_attn", "flash-sparse-attn").flash_sparse_attn_func
    if "attn_mask" not in inspect.signature(function).parameters:
        try:
            found = version("flash-sparse-attn")
        except PackageNotFoundError:
            found = "as it is here"
        raise MissingPeerError(f"flash-sparse-attn {found} takes no mask: it drops weights below a threshold")

    def make() -> Attention:
        t = torch.arange(tokens, device=device.name)
        heads = [case.keeps(torch.tensor(head, device=device.name), t[:, None], t[None]) for head in range(case.heads)]
        mask = torch.stack(heads)[None]

        def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            rows = (x.transpose(1, 2) for x in (q, k, v))
            return function(*rows, attn_mask=mask.expand(len(q), -1, -1, -1), is_causal=True).transpose(1, 2)

        return call

    return {"flash_sparse": make}
