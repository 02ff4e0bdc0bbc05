"""Every kernel against dense attention in fp64: in Triton's interpreter when small, on the GPU when asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.gpu import dense
from tests.gpu.conftest import Device
from tests.gpu.patterns import KINDS, LENGTH, PATTERNS

Import = Callable[[str], ModuleType]


@pytest.mark.parametrize("name", PATTERNS)
def test_the_masks_are_those_of_the_definition(name: str, package: Import, packages: Path) -> None:
    wanted = json.loads((packages / "masks.json").read_text())
    mask = package(name).dense_mask(LENGTH)
    assert hashlib.sha256(bytes(mask.flatten().tolist())).hexdigest() == wanted[name]
    mask[0, 5, 5] ^= True  # negative control
    assert hashlib.sha256(bytes(mask.flatten().tolist())).hexdigest() != wanted[name]


@pytest.mark.parametrize("name", KINDS)
def test_training(name: str, package: Import, device: Device) -> None:
    """DKernel: wrong tiles for patterns that are not KV-monotone, GQA's gradients, the gradient of the LSE."""
    module, q_len, kv_len = package(name), 53 * device.times, 69 * device.times
    q, k, v = (x.requires_grad_() for x in dense.inputs(module, q_len, kv_len, device.dtype))
    given = [x.detach().to(device.name, device.dtype).requires_grad_() for x in (q, k, v)]
    wanted = dense.attention(q, k, v, module.dense_mask(q_len, kv_len))
    got = module.attention(*given, return_lse=True)
    grads = torch.randn_like(wanted[0]).to(device.dtype), torch.randn_like(wanted[1]).float()
    finite = ~wanted[1].isneginf()
    torch.autograd.backward((wanted[0], wanted[1][finite]), (grads[0].double(), grads[1][finite].double()))
    torch.autograd.backward(got, (grads[0].to(device.name), (grads[1] * finite).to(device.name)))
    for x, y in zip([*got, *(x.grad for x in given)], [*wanted, *(x.grad for x in (q, k, v))], strict=True):
        assert dense.error(x, y) < device.tolerance


@pytest.mark.parametrize("name", ["gpu_strided", "gpu_dilated", "gpu_tokens", "gpu_drawn", "gpu_starved", "gpu_values"])
def test_packed_sequences(name: str, package: Import, device: Device) -> None:
    module, lengths = package(name), [n * device.times for n in (0, 37, 1, 50)]
    bounds = torch.tensor([0, *lengths]).cumsum(0).int().to(device.name)
    parts = [dense.inputs(module, n, n, device.dtype, batch=1) for n in lengths]
    q, k, v = (torch.cat(x, 2)[0].transpose(0, 1).to(device.name, device.dtype) for x in zip(*parts, strict=True))
    out, lse = module.attention_varlen(q, k, v, bounds, bounds, max(lengths), max(lengths), return_lse=True)
    wanted = [dense.attention(*part, module.dense_mask(n)) for part, n in zip(parts, lengths, strict=True)]
    assert dense.error(out, torch.cat([x[0].transpose(0, 1) for x, _ in wanted])) < device.tolerance
    assert dense.error(lse, torch.cat([x[0] for _, x in wanted], 1)) < device.tolerance


@pytest.mark.parametrize("name", ["gpu_strided", "gpu_tokens", "gpu_dilated", "gpu_values"])
def test_chunked_prefill(name: str, package: Import, device: Device) -> None:
    """DKernel: later chunks read the wrong keys. Three requests at once, each with another share of it done."""
    module, lengths, news = package(name), [n * device.times for n in (70, 33, 19)], [17, 1, 19 * device.times]
    q, k, v = dense.inputs(module, max(lengths), max(lengths), device.dtype, batch=3)
    k_cache, v_cache, table = dense.paged(k, v, lengths, 32, device.dtype)
    queries = torch.cat([q[r, :, n - new : n] for r, (n, new) in enumerate(zip(lengths, news, strict=True))], 1)
    starts = torch.tensor([0, *news]).cumsum(0)
    whole = (x.to(device.name) for x in (k_cache, v_cache, table, torch.tensor(lengths).int(), starts.int()))
    out = module.attention_paged(queries.transpose(0, 1).to(device.name, device.dtype), *whole)
    for r, (n, new) in enumerate(zip(lengths, news, strict=True)):
        rows = slice(int(starts[r]), int(starts[r + 1]))
        last = q[r : r + 1, :, n - new : n], k[r : r + 1, :, :n], v[r : r + 1, :, :n]
        wanted, _ = dense.attention(*last, module.dense_mask(new, n))
        assert dense.error(out[rows].transpose(0, 1), wanted[0]) < device.tolerance
