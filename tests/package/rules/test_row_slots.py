"""The slots of rows that keep a tile of keys, as dK and dV for Hopper read them, against the mask written out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.gluon.test_backward_tables import RULES
from tests.kernels.held import Held, held

TOKENS = 410
VARIANTS = list(itertools.product(RULES, (16, 32, 64, 128)))


def package(name: str, block: int) -> Held:
    return held(RULES[name].replace("block: 64", f"block: {block}"))


def mask_of(of: Held, klass: int, tokens: int) -> Tensor:
    """The dense mask of the first head of this class."""
    head = of.part("pattern").CLASS_OF[0].index(klass)
    return reference.dense_mask(of.pattern, 0, tokens)[head]


def by_tokens(of: Held, klass: int, tokens: int) -> Tensor:
    """What the parts of this class that are given in tokens keep."""
    rules = of.part("pattern").CLASSES[klass]
    t, u = torch.arange(tokens)[:, None], torch.arange(tokens)
    kept = u.expand(tokens, tokens) < rules["sink"]
    spans = [*rules["bands"], *([(1 - rules["window"][1], rules["window"][0])] if rules["window"] else [])]
    for low, high in spans:
        kept = kept | ((t - u >= low) & (t - u < (tokens if high is None else high)))
    return kept & (u <= t) if of.pattern.causal else kept


def written_out(of: Held, klass: int, span: Any, columns: tuple[int, int], tokens: int) -> Tensor:
    """The mask that a class's lists say, and for parts in tokens its own rule: [slots, tiles] of 64 rows and 128 keys.
    Far slots that are no whole ones, or that follow in another order, are refused."""
    slots = of.part("rules.row_slots")
    pattern, lists, places = of.part("launch.slot_lists").slot_lists((klass,), span, columns, torch.device("cpu"))
    assert places == ((klass, 0),)
    found = torch.zeros(tokens + 1024, tokens + 1024, dtype=torch.bool)
    exact = torch.zeros_like(found)
    exact[:tokens, :tokens] = by_tokens(of, klass, tokens)
    origin, piece, side = columns[0] * of.pattern.block, slots.PIECE, slots.SIDE
    for tile, (start, n_edge, count, *_) in enumerate(pattern.tolist()):
        numbers, *words = lists[start : start + 3 * count].view(3, count).tolist()
        for part in (numbers[:n_edge], numbers[n_edge:]):
            assert part == sorted(set(part))
        for n, number in enumerate(numbers):
            for w, word in enumerate((words[0][n], words[1][n])):
                assert n < n_edge or word == slots.WHOLE
                rows = slice(number * 64, number * 64 + 64)
                keys = slice(origin + tile * 128 + w * 64, origin + tile * 128 + w * 64 + 64)
                if rows.stop > len(found) or keys.stop > len(found):
                    continue
                bits = torch.tensor([word >> bit & 1 for bit in range(side * side)]).view(side, side)
                kept = bits.repeat_interleave(piece, 0).repeat_interleave(piece, 1).bool()
                if of.pattern.causal and word & slots.FINE:
                    kept = kept.tril(rows.start - keys.start)
                if word & slots.EXACT:
                    kept = kept | exact[rows, keys]
                assert not found[rows, keys].any()
                found[rows, keys] = kept
    return found[:tokens, :tokens]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v[0]}-{v[1]}")
def test_they_say_the_mask(variant: tuple[str, int]) -> None:
    of = package(*variant)
    n = -(-TOKENS // 64)
    for klass in range(len(of.part("pattern").CLASSES)):
        found = written_out(of, klass, (0, 0, n - 1, n), (0, -(-TOKENS // variant[1])), TOKENS)
        assert torch.equal(found, mask_of(of, klass, TOKENS))


def test_a_part_of_the_rows_and_keys() -> None:
    """Queries from 130 to 300, of which slot 2 and slot 4 are cut, and keys from the third block on."""
    of = package("drawn", 16)
    found = written_out(of, 0, (2, 3, 4, 5), (3, 20), TOKENS)
    true = mask_of(of, 0, TOKENS)
    true[:128], true[320:], true[:, :48] = False, False, False
    keys = 48 + 128 * 16  # the number of tiles is rounded up
    assert keys > TOKENS and torch.equal(found, true)


@pytest.mark.parametrize("name", ["masked", "both_ways_masked"])
def test_a_wrong_bit_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of = package(name, 32)
    slot_lists = of.part("launch.slot_lists")
    make = slot_lists.row_slots

    def wrong(*given: Any) -> Any:
        pointers, slots, words = make(*given)
        words = words.clone()
        words[3, 0] ^= 1
        return pointers, slots, words

    monkeypatch.setattr(slot_lists, "row_slots", wrong)
    slot_lists.slot_lists.cache_clear()
    found = written_out(of, 0, (0, 0, 6, 7), (0, 13), TOKENS)
    slot_lists.slot_lists.cache_clear()
    assert not torch.equal(found, mask_of(of, 0, TOKENS))
