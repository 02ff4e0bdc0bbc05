"""A batch of the compact cache whose every step is checked, for all that can be told from the lengths."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patterncc import reference
from patterncc.analysis.costs.live import live_tokens
from patterncc.ir.classes import Classes
from patterncc.language.model import Pattern
from patterncc.passes import lower
from tests.package.kvcache.test_cache import FP32
from tests.package.made import HEAD, off

ENDS = HEAD + "shards: [{heads: all, local: 1, mask: ends.npy}]"  # the second KV head's keys live when the first's died
WHOLE = HEAD + "shards: [{heads: 0-1, local: 5 tokens, mask: ends.npy}, {heads: rest, sink: 1, mask: ends.npy}]"


def ends() -> np.ndarray:
    """Heads 0 and 1 keep what lies in blocks 0-11 until row 11; heads 2 and 3 what lies in blocks 12-23, until 23."""
    i, j = np.arange(24)[:, None], np.arange(24)[None, :]
    first, second = (i >= j) & (i < 12), (i >= j) & (j >= 12)
    return np.stack([first, first, second, second])


class Sequence:
    """What one entry of a batch has seen, and what it got."""

    def __init__(self) -> None:
        self.inputs: list[tuple[Tensor, ...]] = []
        self.outs: list[Tensor] = []

    def copy(self) -> Sequence:
        copy = Sequence()
        copy.inputs, copy.outs = [*self.inputs], [*self.outs]
        return copy

    @property
    def length(self) -> int:
        return sum(x[0].shape[2] for x in self.inputs)


class Batch:
    """A cache, and its sequences by themselves. Every step is checked for all that can be told from the lengths."""

    def __init__(self, pattern: Pattern, package: ModuleType, batch: int, **options: Any) -> None:
        self.pattern, self.cache, self.classes = pattern, package.KVCache(batch, **options), lower(pattern)
        self.known = Known(self.classes)
        self.all_seen = self.entries = [Sequence() for _ in range(batch)]
        self.most = options.get("max_length")

    def step(self, n: int, counts: list[int] | None) -> None:
        """Random tokens; those that are none are NaN."""
        p = self.pattern
        shapes = (p.heads, p.head_dim), (p.kv_heads, p.head_dim), (p.kv_heads, p.v_head_dim)
        q, k, v = (torch.randn(len(self.entries), heads, n, width) for heads, width in shapes)
        for entry, count in enumerate(counts or []):
            for x in (q, k, v):
                x[entry, :, count:] = float("nan")
        out = self.cache.step(q, k, v, lengths=None if counts is None else torch.tensor(counts, dtype=torch.int64))
        assert out.shape == (*q.shape[:3], p.v_head_dim)
        for entry, (sequence, count) in enumerate(zip(self.entries, counts or [n] * len(self.entries), strict=True)):
            one = slice(entry, entry + 1)
            sequence.inputs.append(tuple(x[one, :, :count] for x in (q, k, v)))
            sequence.outs.append(out[one, :, :count])
            assert (out[one, :, count:] == 0).all()
        self.look()

    def fork(self, index: list[int]) -> None:
        self.cache = self.cache.fork(torch.tensor(index, dtype=torch.int64))
        self.entries = [self.entries[n].copy() if n >= 0 else Sequence() for n in index]
        self.all_seen = [*self.all_seen, *self.entries]
        self.look()

    def look(self) -> None:
        """Lengths; bytes; memory at most 5/4 of each entry's peak and a block a KV head; and what the places hold."""
        lengths = [sequence.length for sequence in self.entries]
        assert self.cache.lengths.tolist() == lengths and self.cache.lengths.dtype == torch.int64
        assert self.cache.length == max(lengths, default=0)
        token = 4 * (self.pattern.head_dim + self.pattern.v_head_dim)
        blocks = self.pattern.kv_heads * self.pattern.block
        live = [self.live(length) for length in lengths]
        assert self.cache.bytes == sum(live) * token
        peak = [self.peak(length if self.most is None else self.most) for length in lengths]
        assert 4 * self.cache.allocated_bytes <= sum(5 * each + 4 * blocks for each in peak) * token
        tensors = [x.untyped_storage() for bank in self.cache._room.banks for x in bank.memory]
        assert sum({x.data_ptr(): x.nbytes() for x in tensors}.values()) == self.cache.allocated_bytes
        held = 0
        for bank in self.cache._room.banks:
            newest = torch.tensor([lengths[row // self.pattern.kv_heads] - 1 for row in bank.rows]).clamp(min=0)
            held += int((bank.last.amax(1) >= newest[:, None]).sum())
            assert bank.used <= bank.places
        assert held == sum(live)

    def live(self, length: int) -> int:
        """Live keys of all KV heads, by analysis."""
        return self.known[length]

    def peak(self, length: int) -> int:
        """The most over all lengths up to this one, of all KV heads together."""
        return max(self.live(n) for n in range(length + 1))

    def check_outputs(self) -> None:
        """Every entry's outputs are those of dense attention under the definition's mask."""
        for sequence in self.all_seen:
            if sequence.length:
                inputs = [torch.cat(x, 2) for x in zip(*sequence.inputs, strict=True)]
                assert off(torch.cat(sequence.outs, 2), reference.attention(self.pattern, *inputs)[0]) <= FP32


class Known(dict[int, int]):
    """The live keys of a layer, all KV heads together, after so many tokens."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes

    def __missing__(self, length: int) -> int:
        heads = range(self.classes.kv_heads) if length else ()
        self[length] = sum(live_tokens(self.classes, 0, g, length) for g in heads)
        return self[length]
