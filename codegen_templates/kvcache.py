"""A cache of keys and values that holds only what later rows can still read."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from .checks import check_alike, check_heads, check_layer
from .cpu_attend import Mask, attend
from .dispatch import default_scale
from .kvbank import Bank
from .merge import combine
from .pattern import CAUSAL, CLASS_OF, FACTS, HEAD_DIM, HEADS, KV_HEADS, NAME

TOGETHER = 64  # new tokens that are attended to at a time


class KVCache:
    """Keys and values of one layer for decoding: `step` takes the newest tokens and gives their attention.

    A key is dropped as soon as no later row of its KV head's query heads can read it, and its place is taken by the
    next: a window costs its own length, whatever the sequence's.
    """

    def __init__(
        self,
        batch: int,
        *,
        layer: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        max_length: int | None = None,
        head_offset: int = 0,
        heads: int | None = None,
    ) -> None:
        """max_length: memory for so many tokens is taken at once, and more are refused. heads: how many query heads are
        present, from `head_offset` on."""
        check_layer(layer)
        _check_monotone(layer)
        heads = HEADS - head_offset if heads is None else heads
        share = HEADS // KV_HEADS
        groups: dict[int, tuple[int, ...]] = {}
        for head in range(heads):
            kv_head = (head + head_offset) // share - head_offset // share
            groups[kv_head] = (*groups.get(kv_head, ()), head)
        check_heads(heads, len(groups), head_offset)
        self.batch, self.heads, self.kv_heads, self.head_offset = batch, heads, len(groups), head_offset
        self.length, self.max_length = 0, max_length
        like = torch.empty(batch, HEAD_DIM, dtype=dtype, device=device)
        class_of = CLASS_OF[layer][head_offset : head_offset + heads]
        self._banks: list[Bank] = []
        for size in sorted({len(group) for group in groups.values()}):
            bank = Bank.empty({g: group for g, group in groups.items() if len(group) == size}, class_of, like)
            self._banks += [bank] if max_length is None else bank.with_room(bank.peak(max_length))

    @property
    def bytes(self) -> int:
        """Of the live keys and values: those that a row from the newest token's on may attend."""
        live = sum(int((bank.needed >= max(self.length - 1, 0)).sum()) for bank in self._banks)
        return live * self._bytes_of_place

    @property
    def allocated_bytes(self) -> int:
        """Of all places: at most 1.25 times the most bytes that were ever live, and a block a KV head."""
        return sum(bank.places * len(bank.kv_heads) for bank in self._banks) * self._bytes_of_place

    @property
    def _bytes_of_place(self) -> int:
        return 2 * self.batch * HEAD_DIM * self._banks[0].k.element_size()

    def step(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
        """Attention of the newest n tokens, q [batch, heads, n, head_dim], over all keys up to each of them: like q.

        k and v [batch, kv_heads, n, head_dim] are kept for as long as they are needed. Not differentiable.
        """
        self._check(q, k, v)
        out = torch.empty_like(q)
        with torch.no_grad():
            for first in range(0, q.shape[2], TOGETHER):
                some = (slice(None), slice(None), slice(first, first + TOGETHER))
                self._step(q[some], k[some], v[some], default_scale(scale), out[some])
        return out

    def fork(self, index: Tensor) -> KVCache:
        """A copy whose batch entry n is entry index[n] of this one: for beam search."""
        fork = copy.copy(self)
        fork.batch, fork._banks = len(index), [bank.select(index.to(bank.k.device)) for bank in self._banks]
        return fork

    def _step(self, q: Tensor, k: Tensor, v: Tensor, scale: float, out: Tensor) -> None:
        t = torch.arange(self.length, self.length + k.shape[2], device=k.device)
        self.length += len(t)
        self._banks = [part for bank in self._banks for part in bank.with_room(bank.wanted(t, self.length))]
        for bank in self._banks:
            last = bank.lifetimes(t)  # [kv heads, query heads of each, n]
            heads = [head for group in bank.heads for head in group]
            queries = q[:, heads].unflatten(1, last.shape[:2])
            k_new, v_new = k[:, bank.kv_heads], v[:, bank.kv_heads]
            if len(t) == 1:
                bank.put(k_new, v_new, last, self.length)
                part, _ = _attend(queries, bank.k, bank.v, bank.last[:, :, None] >= t, scale)
            else:
                old = _attend(queries, bank.k, bank.v, bank.last[:, :, None] >= t[:, None], scale)
                new = _attend(queries, k_new, v_new, (t <= t[:, None]) & (last[:, :, None] >= t[:, None]), scale)
                part, _ = combine(*zip(old, new, strict=True))
                bank.put(k_new, v_new, last, self.length)
            out[:, heads] = part.flatten(1, 2)

    def _check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        check_alike(q=q, k=k, v=v, cache=self._banks[0].k)
        for name, x, heads in (("q", q, self.heads), ("k", k, self.kv_heads), ("v", v, self.kv_heads)):
            if x.shape[:2] != (self.batch, heads) or x.shape[2] != q.shape[2]:
                raise ValueError(
                    f"{name} must be [{self.batch}, {heads}, n, {HEAD_DIM}] as this cache was made, with one n for q, "
                    f"k and v; got {list(x.shape)}"
                )
        if self.max_length is not None and self.length + q.shape[2] > self.max_length:
            raise ValueError(
                f"{self.length} tokens are cached and {q.shape[2]} come: more than max_length={self.max_length}"
            )


def _attend(q: Tensor, k: Tensor, v: Tensor, kept: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """q [batch, kv heads, query heads, n, dim] over k and v [batch, kv heads, keys, dim] where `kept` [kv heads, query
    heads, n, keys]: like q, and its LSE."""
    if not k.shape[2]:
        return torch.zeros_like(q), q.new_full(q.shape[:-1], float("-inf"), dtype=torch.float32)
    kept = kept.flatten(1, 2).repeat(q.shape[0], 1, 1)  # [batch * kv heads, query heads * n, keys]
    mask = None if kept.all() else Mask.of(kept, q.dtype)
    queries = q.flatten(0, 1).flatten(1, 2)
    out, lse = attend(*(x[:, None] for x in (queries, k.flatten(0, 1), v.flatten(0, 1))), mask, scale)
    return out.view(q.shape), lse.view(q.shape[:-1])


def _check_monotone(layer: int) -> None:
    """A cache may drop a key only if no later row takes it up again."""
    if not CAUSAL:
        raise ValueError(f"{NAME} is not causal: a query may attend keys that come after it, so it cannot be decoded")
    if witness := FACTS.get("kv", {}) and FACTS["kv"][layer]:
        if witness["query_token"] is None:
            raise ValueError(f"{NAME}, layer {layer}: not proved that dropped keys stay dropped ({witness['note']})")
        raise ValueError(
            f"{NAME}, layer {layer}, head {witness['head']}: row {witness['row']} reads column {witness['column']} "
            f"(query token {witness['query_token']}, key token {witness['key_token']}), which a row before it had "
            "dropped; a cache that drops keys cannot serve that: use a paged one. `patterncc verify kv` says more"
        )
