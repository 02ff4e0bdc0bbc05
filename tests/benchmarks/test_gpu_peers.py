"""Peers of the gpu suite: what they are given, where they take part, and what is said where they are not there."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks.gpu import cases, installed, peers, witness
from benchmarks.gpu.device import Device


@pytest.mark.parametrize("name, size", [("ancestor", 64), ("ancestor", 128), ("block16", 128), ("mixed", 64)])
def test_flex_attention_is_given_our_mask(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.CASES[name]

    def dense_mask(tokens: int) -> torch.Tensor:
        t, u = torch.arange(tokens)[:, None], torch.arange(tokens)[None]
        return case.keeps(torch.arange(case.heads)[:, None, None], t, u)

    module = ModuleType(case.module)
    monkeypatch.setitem(sys.modules, case.module, module)
    monkeypatch.setattr(module, "dense_mask", dense_mask, raising=False)
    peers.check_block_mask(case, size)
    last = torch.tensor([1023])
    monkeypatch.setattr(module, "dense_mask", lambda tokens: dense_mask(tokens).index_fill(1, last % tokens, False))
    with pytest.raises(witness.WrongError, match="is not ours"):  # the control
        peers.check_block_mask(case, size)


def test_flash_sparse_attention_takes_part_where_it_takes_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that looks like its first versions, and something like its later ones."""
    case, device = cases.TOY, Device(toy=True)
    q, k, v = device.sequences(case, 2, 70)

    def first(q, k, v, attn_mask, is_causal):  # type: ignore[no-untyped-def]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask, enable_gqa=True).transpose(1, 2)

    def later(q, k, v, is_causal, softmax_threshold):  # type: ignore[no-untyped-def]
        raise AssertionError

    module = ModuleType("flash_sparse_attn")
    monkeypatch.setitem(sys.modules, "flash_sparse_attn", module)
    monkeypatch.setattr(module, "flash_sparse_attn_func", first, raising=False)
    [make] = peers.others(device, case, 70, "flash_sparse", ()).values()
    assert witness.check_sequences(case, device.tolerance, make(), q, k, v) < device.tolerance
    monkeypatch.setattr(module, "flash_sparse_attn_func", later)
    with pytest.raises(installed.MissingPeerError, match="takes no mask"):
        peers.others(device, case, 70, "flash_sparse", ())


@pytest.mark.parametrize("peer, title", [("dkernel", "DKernel"), ("fa4", "FlashAttention-4"),
                                         ("flash_sparse", "flash-sparse-attn")])  # fmt: skip
def test_a_peer_that_is_not_there_is_named(peer: str, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dkernel", "flash_attn.cute", "flash_sparse_attn"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(installed.MissingPeerError, match=f"{title} cannot be imported: ModuleNotFoundError"):
        peers.others(Device(toy=True), cases.TOY, 64, peer, (16,))


def test_flex_attention_is_compiled_so_that_its_backward_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its own kernels and on FlashAttention-4's: gradients are asked for many times after one forward."""
    given: list[Any] = []

    def compiled(function: Any, dynamic: bool) -> Any:
        given.append(torch._functorch.config.donated_buffer)
        return lambda q, k, v, **options: given.append(options["kernel_options"])

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(peers, "check_block_mask", lambda case, size: None)
    monkeypatch.setattr(peers, "imported", lambda name, title: None)
    monkeypatch.setattr(Device, "name", "cpu")
    with torch._functorch.config.patch(donated_buffer=True):  # a patch puts it back, which monkeypatch does not
        for peer in ("flex", "fa4"):
            [make] = peers.others(Device(toy=False), cases.TOY, 256, peer, (128,)).values()
            make()(None, None, None)  # type: ignore[arg-type]
    assert given == [False, None, False, {"BACKEND": "FLASH"}]
