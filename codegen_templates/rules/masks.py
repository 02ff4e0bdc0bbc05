"""Which blocks and tokens a class keeps: its rules as predicates, and the tables made from them."""

from __future__ import annotations

import functools
import os

import torch
from torch import Tensor

from ..checks.shapes import check_layer, check_length
from ..pattern import BLOCK, CAUSAL, CLASS_OF, CLASSES, MASKS

FAR = 1 << 62  # tokens: no bound
CHUNK = 1 << 22  # block pairs looked at together


def dense_mask(q_len: int, kv_len: int | None = None, *, layer: int = 0) -> Tensor:
    """Which query token may attend which key token, written out: bool [heads, q_len, kv_len]. For inspection."""
    kv_len = q_len if kv_len is None else kv_len
    check_layer(layer)
    check_length(q_len=q_len, kv_len=kv_len)
    t = torch.arange(kv_len - q_len, kv_len)[:, None]
    u = torch.arange(kv_len)[None, :]
    masks = {klass: keeps(klass, t, u) for klass in sorted(set(CLASS_OF[layer]))}
    return torch.stack([masks[klass] for klass in CLASS_OF[layer]])


def keeps(klass: int, t: Tensor, u: Tensor) -> Tensor:
    """Whether query token t may attend key token u; t and u broadcast."""
    rules = CLASSES[klass]
    kept = keeps_blocks(klass, _block(t), _block(u))
    if rules["window"]:
        before, after = rules["window"]
        kept = kept | ((t - u < before) & (t - u > -after))
    for low, high in rules["bands"]:
        kept = kept | ((t - u >= low) & (t - u < (FAR if high is None else high)))
    if rules["sink"]:
        kept = kept | (u < rules["sink"])
    return kept & (u <= t) if CAUSAL else kept


def keeps_blocks(klass: int, i: Tensor, j: Tensor) -> Tensor:
    """Whether row i keeps column j whole, before the causal cut; i and j broadcast."""
    rules = CLASSES[klass]
    kept = torch.zeros(torch.broadcast_shapes(i.shape, j.shape), dtype=torch.bool, device=i.device)
    for term in rules["terms"]:
        kept |= _term(term, i, j)
    if rules["chunk"]:
        kept |= _chunk(i, rules["chunk"]) == _chunk(j, rules["chunk"])
    if rules["random"]:
        kept |= _drawn(rules["random"], i, j)
    if rules["mask"] is not None:
        kept |= _masked(rules["mask"], i, j)
    return kept


def touches_blocks(klass: int, i: Tensor, j: Tensor) -> Tensor:
    """Whether the parts given in tokens keep anything of block (i, j), before the causal cut; i and j broadcast."""
    rules = CLASSES[klass]
    touched = torch.zeros(torch.broadcast_shapes(i.shape, j.shape), dtype=torch.bool, device=i.device)
    if rules["window"]:
        before, after = rules["window"]
        touched |= (i - j <= _ceil(before - 1)) & (i - j >= -_ceil(after - 1))
    for low, high in rules["bands"]:
        touched |= (i - j >= low // BLOCK) & (i - j <= (FAR if high is None else _ceil(high - 1)))
    if rules["sink"]:
        touched |= j < _ceil(rules["sink"])
    return touched


def _block(t: Tensor) -> Tensor:
    return t.div(BLOCK, rounding_mode="floor")


def _chunk(x: Tensor, blocks: int) -> Tensor:
    return x.div(blocks, rounding_mode="floor")


def _ceil(tokens: int) -> int:
    return -(-tokens // BLOCK)


def _term(term: tuple, i: Tensor, j: Tensor) -> Tensor:
    """A conjunction of bounds on i - j, j and i, and of a residue."""
    bounds, (every, offset, width, anchor) = term[:6], term[6:]
    kept = torch.ones((), dtype=torch.bool, device=i.device)
    for x, low, high in ((i - j, *bounds[0:2]), (j, *bounds[2:4]), (i, *bounds[4:6])):
        if low is not None:
            kept = kept & (x >= low)
        if high is not None:
            kept = kept & (x < high)
    if every > 1:
        kept = kept & (((j if anchor == "j" else i - j) - offset).remainder(every) < width)
    return kept


def _masked(mask: int, i: Tensor, j: Tensor) -> Tensor:
    """The explicit mask's bit of (i, j), false outside it."""
    _, rows, columns = MASKS[mask]
    bit = i.clamp(0, rows - 1) * columns + j.clamp(0, columns - 1)
    byte = _bytes(mask, i.device)[bit >> 3]
    return (byte >> (7 - (bit & 7)) & 1).bool() & (i >= 0) & (i < rows) & (j >= 0) & (j < columns)


def _mapped(file: str, rows: int, columns: int) -> Tensor:
    """A mask's packed bits, mapped from its file: at the import, for the file may be another one later."""
    path = os.path.join(os.path.dirname(os.path.dirname(__file__)), file)
    return torch.from_file(path, size=-(-rows * columns // 8), dtype=torch.uint8, device="cpu")


_mapped_masks = [_mapped(*mask) for mask in MASKS]


@functools.cache
def _bytes(mask: int, device: torch.device) -> Tensor:
    return _mapped_masks[mask].to(device)


def mask_rows(mask: int, device: torch.device) -> Tensor:
    """The whole of an explicit mask: bool [rows, columns]."""
    _, rows, columns = MASKS[mask]
    return _masked(mask, torch.arange(rows, device=device)[:, None], torch.arange(columns, device=device)[None, :])


def _drawn(random: tuple[int, int], i: Tensor, j: Tensor) -> Tensor:
    """Whether row i draws column j."""
    rows, index = torch.unique(i, return_inverse=True)
    columns = draw(random, rows)
    last = int(j.max()) if j.numel() else 0
    grid = torch.zeros(len(rows), max(last, 0) + 2, dtype=torch.bool, device=i.device)  # a column for what lies outside
    grid.scatter_(1, torch.where((columns < 0) | (columns > last), max(last, 0) + 1, columns), True)
    grid[:, -1] = False
    return grid[index, torch.where(j < 0, max(last, 0) + 1, j)]


def draw(random: tuple[int, int], rows: Tensor) -> Tensor:
    """The columns that each row draws, unsorted, by Floyd's sampling: [rows, blocks], -1 where there are fewer."""
    blocks, seed = random
    drawn = torch.full((len(rows), blocks), -1, dtype=torch.int64, device=rows.device)
    for k in range(blocks):
        top = rows + 1 - blocks + k
        x = _shift(_mix(seed, rows, k), 1) % (top + 1).clamp(min=1)
        again = (drawn[:, :k] == x[:, None]).any(1)
        drawn[:, k] = torch.where(again, top, x)
    k = torch.arange(blocks, device=rows.device)
    every = torch.where(k <= rows[:, None], k, -1)
    return torch.where(rows[:, None] < blocks, every, drawn)


def _mix(seed: int, rows: Tensor, k: int) -> Tensor:
    """Sixty-four well mixed bits of (seed, row, k): splitmix64's finaliser, modulo 2**64."""
    z = rows * _signed(0xBF58476D1CE4E5B9) + _signed(seed * 0x9E3779B97F4A7C15 + k * 0x94D049BB133111EB)
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's own repeats the sign."""
    return z >> bits & ((1 << 64 - bits) - 1)


def _signed(x: int) -> int:
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)
