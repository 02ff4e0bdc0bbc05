"""Of `launched.py`: calls of kinds that are drawn at random and come again in any order, by recipes and by Triton."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from random import Random
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from tests.benchmarks.seen import are_tritons

Drawn = tuple[Callable[[], object], list[torch.Tensor]]  # a call, and the tensors that it is given


def whole(package: ModuleType, chance: Random) -> Drawn:
    """Sequences of a batch, of which the last tokens are queries; heads outside or tokens outside."""
    batch, tokens = chance.choice([1, 2]), chance.choice([300, 1500])
    queries = chance.choice([tokens, 170])

    def made(heads: int, length: int, is_laid: bool) -> torch.Tensor:
        shape = (batch, length, heads, 64) if is_laid else (batch, heads, length, 64)
        x = torch.zeros(shape, dtype=torch.float16)
        return x.transpose(1, 2) if is_laid else x

    is_laid = chance.choice([False, True])
    q, k, v = made(2, queries, is_laid), *(made(1, tokens, chance.choice([False, True])) for _ in range(2))
    if chance.random() < 0.2:
        v = k  # one tensor in two places
    place = {} if chance.random() < 0.7 else {"q_start": 1600, "kv_start": 16}
    return with_rest(package.attention, chance, [q, k, v], **place)


def packed(package: ModuleType, chance: Random) -> Drawn:
    """Packed sequences, with rows of none before and behind; one list of lengths or two."""
    starts = [torch.tensor(chance.choice([[3, 200, 500], [0, 197, 512]]), dtype=torch.int32) for _ in range(2)]
    lists = [starts[0], starts[chance.choice([0, 1])]]
    rows = [torch.zeros(512, heads, 64, dtype=torch.float16) for heads in (2, 1, 1)]
    return with_rest(package.attention_varlen, chance, [*rows, *lists], 320, chance.choice([320, 400]))


def paged(package: ModuleType, chance: Random) -> Drawn:
    """Prefills over pages."""
    rows, pages = torch.zeros(400, 2, 64, dtype=torch.float16), chance.choice([40, 64])
    caches = [torch.zeros(pages, 16, 1, 64, dtype=torch.float16) for _ in range(2)]
    table = torch.arange(40, dtype=torch.int32).view(2, 20)
    lengths, starts = (torch.tensor(x, dtype=torch.int32) for x in ([300, 310], [0, 180, 390]))
    given = [rows, *caches, table, lengths, starts]
    return with_rest(package.attention_paged, chance, given, max_q_len=chance.choice([210, None]))


def with_rest(
    call: Callable[..., object], chance: Random, given: list[torch.Tensor], *more: int, **place: Any
) -> Drawn:
    place |= {"layer": chance.choice([0, 1, 2]), "scale": chance.choice([None, None, 0.25])}
    if chance.random() < 0.3:
        place["sinks"] = torch.zeros(16)[chance.choice([0, 1]) :][:2]  # at any address
    sinks = [place["sinks"]] if "sinks" in place else []
    return partial(call, *given, *more, **place), [*given, *sinks]


def drawn(package: ModuleType, kinds: int, count: int, seed: int) -> dict[str, bool]:
    """Whether each of so many calls, of so many kinds, launches what Triton would, and most do by recipes."""
    recipe = importlib.import_module(f"{package.__name__}.api.recipe").Recipe
    chance, repeated, wrong = Random(seed), 0, list[int]()
    launch = recipe.__call__

    def counted(self: Any, *given: Any) -> Any:
        nonlocal repeated
        repeated += 1
        return launch(self, *given)

    with mock.patch.object(recipe, "__call__", counted), torch.no_grad():
        for n in range(count):
            kind = Random(seed + chance.randrange(kinds))
            call, given = kind.choice([whole, packed, paged])(package, kind)
            if not are_tritons(call, *given):
                wrong.append(n)
    return {f"drawn calls, not {wrong}": not wrong, f"{repeated} of {count} drawn by recipes": 2 * repeated > count}
