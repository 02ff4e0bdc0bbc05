"""The memory of a KV cache: where tokens are put."""

from __future__ import annotations

import importlib

import torch

from tests.package.made import compiled


def test_one_token_after_another_lies_where_all_together_do() -> None:
    """The first free place, the second, …; what nobody needs takes none."""
    _, package = compiled("strided")
    bank_of = importlib.import_module(f"{package.__name__}.kvcache.bank").Bank
    torch.manual_seed(5)
    rows, places, tokens, newest = 40, 6, 4, torch.randint(3, 6, (40,))
    until = torch.randint(0, 9, (rows, 2, places + 1), dtype=torch.int32)
    until[..., -1] = -1
    k, v, odd = torch.randn(rows, tokens, 16), torch.randn(rows, tokens, 16), torch.zeros(rows, tokens)
    last = torch.randint(0, 9, (rows, 2, tokens), dtype=torch.int32)
    free = (until[..., :-1].amax(1) < newest[:, None]).sum(1)
    lives = (last.amax(1) >= newest[:, None]).sum(1)
    assert (free < lives).any() and (free > lives).any() and (lives < tokens).any()
    banks = [
        bank_of.empty(range(rows), rows, (torch.zeros(rows, places + 1, 16), torch.zeros(rows, places + 1, 16)), 2)
    ]
    banks.append(bank_of.empty(range(rows), rows, tuple(x.clone() for x in banks[0].memory), 2))
    for bank in banks:
        bank.until = until.clone()
    enough = free >= lives  # as `Room` has always seen to
    banks[0].put(k, v, odd, last, newest)
    for n in range(tokens):
        one = slice(n, n + 1)
        banks[1].put(k[:, one], v[:, one], odd[:, one], last[..., one], newest)
    for together, alone in zip(
        (*banks[0].memory, banks[0].until.mT), (*banks[1].memory, banks[1].until.mT), strict=True
    ):
        assert torch.equal(together[enough, :-1], alone[enough, :-1])
    held = (until[..., :-1].amax(1) >= newest[:, None]) & enough[:, None]
    for bank in banks:  # nothing that is still needed was written over
        assert torch.equal(bank.until[..., :-1].mT[held], until[..., :-1].mT[held])
        assert (bank.memory[0][:, :-1][held] == 0).all()
    assert not torch.equal(banks[0].until, until)
