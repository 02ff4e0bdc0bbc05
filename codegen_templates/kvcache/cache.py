"""A cache of keys and values that holds only what later rows can still read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ..api import paths
from ..api.again import are_open, key_of
from ..api.dispatch import default_scale
from ..api.ops import attention
from ..api.sinks import check_sinks
from ..checks.shapes import check_alike, check_heads
from ..checks.values import check_tensors, counted
from ..launch.outputs import like_output
from ..launch.requests import in_line
from ..pattern import CLASS_OF, HEAD_DIM, NAME, V_HEAD_DIM
from ..rules.heads import kv_head
from ..rules.lifetime import NEVER, Lifetimes
from .attending import attend_held, attend_held_and_new
from .bank import Bank
from .checks import check_entries, check_kind, check_lengths, check_made, check_monotone, check_step
from .room import Room

TOGETHER = 64  # new tokens that are attended to at a time, once there are old ones


class KVCache:
    """Keys and values of one layer for decoding: `step` takes the newest tokens and gives their attention.

    A key is dropped as soon as no later row of its KV head's query heads can read it, and its place is taken by the
    next: a window costs its own length, whatever the sequence's. The entries of a batch may have different lengths.

    On a GPU two kernels do a step of one token, and `attention` takes a first prompt; all else is done by torch's
    operators. Nothing waits for the device unless `lengths` or `index` come from there.
    """

    lengths: Tensor  # int64 [batch]: the tokens that each entry has had

    @torch.inference_mode(False)  # else its tensors could not be written to outside of that mode
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
        batch, layer, max_length, head_offset, heads = check_made(batch, layer, max_length, head_offset, heads)
        check_monotone(layer)
        check_kind(dtype, device)
        groups: dict[int, list[int]] = {}
        for head in range(heads):
            groups.setdefault(kv_head(head, head_offset), []).append(head)
        check_heads(heads, len(groups), head_offset)
        self.batch, self.heads, self.kv_heads = batch, heads, len(groups)
        self.layer, self.head_offset, self.max_length = layer, head_offset, max_length
        self._is_torn = False  # whether a step has changed something and not ended
        self._checked: Any = None  # the key of the last step, whose like need not be looked at again
        self._like = torch.empty(0, HEAD_DIM, dtype=dtype, device=device)
        self._ends = [0] * batch
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        self._ones = torch.ones_like(self.lengths)

        size = max(map(len, groups.values()))  # a rank may have a part of a group: its first head is taken repeatedly
        filled = [(group + group[:1] * size)[:size] for group in groups.values()]
        taken = [head for group in filled for head in group]
        self._taken = self._given = None  # the query heads of all rows, and where each head is there; None: as they are
        if len(taken) > heads:
            self._taken = torch.tensor(taken, device="cpu").to(self._like.device)
            self._given = torch.tensor([taken.index(head) for head in range(heads)], device="cpu").to(self._like.device)
        class_of = CLASS_OF[layer][head_offset : head_offset + heads]
        classes = [[class_of[head] for head in group] for group in filled]
        needs = [tuple(sorted(set(group))) for group in classes]
        if all(len(group) == 1 for group in needs):
            classes = [group[:1] for group in classes]
        self._lifetimes = Lifetimes(classes, self._like.device)
        self._room = Room(self._like, batch, needs, len(classes[0]), max_length)

    @property
    def length(self) -> int:
        """The tokens that every entry has had; where `lengths` differ, the most."""
        return max(self._ends, default=0)

    @property
    def bytes(self) -> int:
        """Bytes of the live keys and values: those that a row from an entry's newest token on may attend."""
        return sum(self._room.wanted(self._ends).values()) * self._bytes_of_place

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all allocated places: for every entry at most 1.25 times the most bytes of it that were ever live,
        and a block for each KV head. With `max_length`, of the most that are live at any length up to it."""
        return self._room.places * self._bytes_of_place

    @property
    def _bytes_of_place(self) -> int:
        return (HEAD_DIM + V_HEAD_DIM) * self._like.element_size()

    def step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Attention of the newest n tokens, q [batch, heads, n, head_dim], over all keys up to each of them: like q.

        k and v [batch, kv_heads, n, head_dim] are kept for as long as they are needed. `lengths` [batch] says how many
        of the n tokens, the first ones, each entry really has (best on the CPU); what stands in the others is not read,
        and their output is 0. Under autocast q, k and v are cast to the cache's dtype. `sinks` [heads] as of
        `attention`. Not differentiable. A step that an error stops midway is the last one: RuntimeError from then on.
        """
        self._check_whole()
        key = key_of("step", (q, k, v, sinks), scale, self.layer)
        if key is None or key != self._checked:
            q, k, v = self._check(q, k, v, sinks)
            self._checked = key
        n = q.shape[2]
        counts = [n] * self.batch if lengths is None else check_lengths(lengths, self.batch, n)
        if self.max_length is not None:
            self._check_room(counts)
        scale = default_scale(scale)
        is_token = n == 1 and self._room.banks and (key is not None or are_open(q, k, v, sinks))
        if is_token and (launch := paths.steps(self._like)) is not None:
            with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
                out = self._launch(launch, q, k, v, scale, counts, sinks)
        else:
            out = self._compute(q, k, v, scale, counts, sinks)
        self._is_torn = False
        return out

    def _check(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors of a step, cast under autocast, as this cache was made for them; numbers side by side."""
        check_tensors(q=q, k=k, v=v)
        device = q.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            q, k, v = (x.to(self._like.dtype) for x in (q, k, v))
        check_step(q, k, v, self.batch, self.heads, self.kv_heads)
        check_alike(q=q, k=k, v=v, cache=self._like)
        check_sinks(sinks, q, self.heads)
        return in_line(q), in_line(k), in_line(v)

    def _launch(
        self, launch: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, counts: list[int], sinks: Tensor | None
    ) -> Tensor:
        """`step` of one token, by two kernels for each bank."""
        sinks = None if sinks is None else in_line(sinks)
        tables, lengths, news = self._lifetimes.tables(self.length + 1), self.lengths, self._ones
        if not all(counts):
            news = torch.tensor(counts, device="cpu").to(q.device, non_blocking=True)
        out = torch.empty(*q.shape[:3], V_HEAD_DIM, dtype=q.dtype, device=q.device)
        longer = torch.empty_like(lengths)
        self._is_torn = True
        self._ends = [end + count for end, count in zip(self._ends, counts, strict=True)]
        self._room.make(self._ends, max(counts))
        for bank in self._room.banks:
            launch.put(bank, k, v, lengths, longer, news, tables)
            launch.attend(bank, q, out, lengths, news, sinks, scale, self.kv_heads, self.head_offset)
        self.lengths = longer
        return out

    def _compute(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, counts: list[int], sinks: Tensor | None
    ) -> Tensor:
        """`step` by torch's operators, and of a first prompt by `attention`."""
        n, device = q.shape[2], q.device.type
        casts = torch.amp.is_autocast_available(device)
        plain = torch.autocast(device, enabled=False) if casts else nullcontext()
        with torch.inference_mode(False), torch.no_grad(), plain:
            together = TOGETHER if any(self._ends) else max(n, 1)
            if 0 < n <= together:
                return self._step(q, k, v, scale, counts, sinks)
            outs = [q.new_empty((*q.shape[:2], 0, V_HEAD_DIM))]
            for first in range(0, n, together):
                some = (slice(None), slice(None), slice(first, first + together))
                here = [min(max(count - first, 0), together, n - first) for count in counts]
                outs.append(self._step(q[some], k[some], v[some], scale, here, sinks))
            return torch.cat(outs, 2) if len(outs) != 2 else outs[1]

    def fork(self, index: Tensor | Sequence[int]) -> KVCache:
        """A copy whose batch entry n is entry index[n] of this one, with its length: for beam search. Where index[n] is
        -1 it is a new, empty one: so sequences come and go in a batch."""
        entries = check_entries(index, self.batch)
        self._check_whole()
        fork = copy.copy(self)
        fork.batch, fork._checked = len(entries), None
        fork._ends = [self._ends[n] if n >= 0 else 0 for n in entries]
        with torch.inference_mode(False), torch.no_grad():
            fork.lengths = torch.tensor(fork._ends, dtype=torch.int64, device="cpu").to(
                self._like.device, non_blocking=True
            )
            fork._ones = torch.ones_like(fork.lengths)
            fork._room = self._room.fork(entries, fork._ends)
        return fork

    def _step(self, q: Tensor, k: Tensor, v: Tensor, scale: float, counts: list[int], sinks: Tensor | None) -> Tensor:
        """`step` for tokens that are attended together; counts [batch]: how many of them are real."""
        n, device, is_new = q.shape[2], q.device, not any(self._ends)
        tokens = self.lengths[:, None]  # [batch, n]
        tokens = tokens if n == 1 else tokens + torch.arange(n, device=device)
        last = self._lifetimes.of(tokens, self.length + n).permute(2, 0, 1, 3)  # [batch, kv heads, classes, n]
        self._is_torn = True
        if padded := min(counts, default=n) < n:
            real = torch.tensor(counts, device="cpu").to(device, non_blocking=True)
            pads = (torch.arange(n, device=device) >= real[:, None])[:, None, :, None]  # [batch, 1, n, 1]
            q, k, v = (x.masked_fill(pads, 0.0) for x in (q, k, v))
            last = last.masked_fill(pads.mT, NEVER)
            self.lengths = self.lengths + real
        else:
            pads, self.lengths = None, self.lengths + n
        self._ends = [end + count for end, count in zip(self._ends, counts, strict=True)]

        t = tokens.int().repeat_interleave(self.kv_heads, 0)  # [rows, n]
        newest = (self.lengths - 1).clamp(min=0).repeat_interleave(self.kv_heads) if padded else t[:, -1]
        odd = (k * 0.0).sum(-1) + (v * 0.0).sum(-1)  # NaN where anything is not finite
        rows = (
            _select(q, self._taken).unflatten(1, (self.kv_heads, -1)).flatten(0, 1),  # [rows, query heads, n, dim]
            k.nan_to_num(0.0, 0.0, 0.0).flatten(0, 1),
            v.nan_to_num(0.0, 0.0, 0.0).flatten(0, 1),
            odd.flatten(0, 1),
            last.flatten(0, 1),
            t,
        )
        of_rows = None  # [rows, query heads, 1]
        if sinks is not None:
            of_rows = _select(sinks[None], self._taken).unflatten(1, (self.kv_heads, -1))
            of_rows = of_rows.expand(self.batch, -1, -1).flatten(0, 1)[..., None]
        if n > 1 and is_new:
            out = attention(q, k, v, layer=self.layer, scale=scale, head_offset=self.head_offset, sinks=sinks)
        elif n > 1:
            out = self._gather(q, lambda bank: attend_held_and_new(bank, *map(bank.pick, rows), scale, of_rows))
        self._room.make(self._ends, max(counts, default=0))
        for bank in self._room.banks:
            bank.put(*(bank.pick(x) for x in (*rows[1:5], newest)))
        if n == 1:
            out = self._gather(
                q, lambda bank: attend_held(bank, bank.pick(rows[0]), bank.pick(rows[5]), scale, of_rows)
            )
        return out.masked_fill(pads, 0.0) if padded else out

    def _gather(self, q: Tensor, attended: Callable[[Bank], Tensor]) -> Tensor:
        """What every bank gives for its rows, [rows, query heads, n, dim], as one tensor like q."""
        banks = self._room.banks
        if not banks:
            return like_output(q)
        out = attended(banks[0])
        if not banks[0].are_all:
            whole = out.new_empty(self.batch * self.kv_heads, *out.shape[1:])
            for bank in banks:
                whole[bank.index] = out if bank is banks[0] else attended(bank)
            out = whole
        return _select(out.unflatten(0, (self.batch, self.kv_heads)).flatten(1, 2), self._given)

    def _check_whole(self) -> None:
        if self._is_torn:
            raise RuntimeError(
                f"{NAME}: a step of this cache did not end, an error or interrupt stopped it: what it holds is "
                "not known. Make a new one, and step it through all tokens"
            )

    def _check_room(self, counts: list[int]) -> None:
        for end, count in zip(self._ends, counts, strict=True):
            if self.max_length is not None and end + count > self.max_length:
                raise ValueError(
                    f"{counted(end, 'token')} {'is' if end == 1 else 'are'} cached and {count} come: more than "
                    f"max_length={self.max_length}"
                )


def _select(x: Tensor, heads: Tensor | None) -> Tensor:
    return x if heads is None else x.index_select(1, heads)
