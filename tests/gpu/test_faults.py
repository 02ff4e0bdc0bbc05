"""Faults that DKernel had, and that test_kernels.py does not meet on its way."""

from __future__ import annotations

import importlib

import pytest
import torch

from tests.gpu import dense
from tests.gpu.conftest import Device
from tests.gpu.patterns import ODD
from tests.gpu.test_kernels import Import


@pytest.mark.parametrize("name", ["gpu_strided", "gpu_tokens", *ODD])
def test_decoding(name: str, package: Import, device: Device) -> None:
    """Without padding though the query tile is larger than the block; head dims that are no power of two."""
    module, lengths = package(name), [1, 17 * device.times, 50 * device.times]
    _, k, v = dense.inputs(module, 1, max(lengths), device.dtype, batch=3)
    q, _, _ = dense.inputs(module, 1, 1, device.dtype, batch=3)
    cache = [x.to(device.name) for x in dense.paged(k, v, lengths, 16, device.dtype)]
    rows = q.transpose(1, 2).to(device.name, device.dtype)
    out = module.decode(rows, *cache, torch.tensor(lengths, dtype=torch.int32, device=device.name))
    for r, n in enumerate(lengths):
        wanted, _ = dense.attention(q[r : r + 1], k[r : r + 1, :, :n], v[r : r + 1, :, :n], module.dense_mask(1, n))
        assert dense.error(out[r, 0], wanted[0, :, 0]) < device.tolerance


@pytest.mark.parametrize("length", [1, 5, 15, 16, 17])
def test_short_lengths_that_are_not_causal(length: int, package: Import, device: Device) -> None:
    module = package("gpu_both_ways")
    q, k, v = dense.inputs(module, length, length, device.dtype)
    out = module.attention(*(x.to(device.name, device.dtype) for x in (q, k, v)))
    assert dense.error(out, dense.attention(q, k, v, module.dense_mask(length))[0]) < device.tolerance


def test_parts_without_a_key(package: Import, device: Device) -> None:
    """Output 0 and an LSE of -inf, never NaN; and merged with the rest they change nothing."""
    module, length = package("gpu_tokens"), 96
    q, k, v = dense.inputs(module, 16, length, device.dtype)
    given = [x.to(device.name, device.dtype) for x in (q, k, v)]
    parts = []
    for first, stop in ((0, 16), (16, 48), (48, 96)):  # the window is 21 tokens: the middle part is out of reach
        keys = [x[:, :, first:stop] for x in given[1:]]
        parts.append(module.attention(given[0], *keys, return_lse=True, q_start=length - 16, kv_start=first))
    assert (parts[1][0] == 0).all() and parts[1][1].isneginf().all()
    out, lse = module.combine(*zip(*parts, strict=True))
    wanted = dense.attention(q, k, v, module.dense_mask(16, length))
    assert dense.error(out, wanted[0]) < device.tolerance and dense.error(lse, wanted[1]) < device.tolerance


@pytest.mark.gpu
def test_offsets_beyond_31_bits(package: Import) -> None:
    """A million tokens of 32 heads: 2**32 numbers in q. Its last rows, and only the keys that they keep, in fp64."""
    if torch.cuda.get_device_properties(0).total_memory < 40 * 2**30:
        pytest.skip("needs 40 GiB")
    module, length, rows = package("gpu_long"), 2**20, 40
    q, k, v = (torch.randn(1, n, length, 128, device="cuda", dtype=torch.bfloat16) for n in (32, 8, 8))
    out = module.attention(q, k, v)[:, :, -rows:]
    u = torch.cat([torch.arange(64), torch.arange(length - 192, length)])  # the sink and more than the window
    t = torch.arange(length - rows, length)
    mask = importlib.import_module("gpu_long.rules.masks").keeps(0, t[:, None], u[None, :]).expand(32, -1, -1)
    last = q[:, :, -rows:].cpu().double(), *(x[:, :, u.cuda()].cpu().double() for x in (k, v))
    assert dense.error(out, dense.attention(*last, mask)[0]) < 1e-2  # bf16
