"""Brute force, straight from the meaning of a layout, and random patterns: what the proofs are held against."""

from __future__ import annotations

import random
from dataclasses import replace
from zlib import crc32

import numpy as np

from patterncc.ir.classes import Classes
from patterncc.ir.layout import KEY, QUERY, Layout, Mask, Random, Term


def attends(layout: Layout, block: int, causal: bool, t: int, u: int) -> bool:
    """Whether the layout keeps one token pair, however far out (no random part)."""
    i, j = t // block, u // block
    kept = any(term.keeps(i, j) for term in layout.terms) or u < layout.sink
    if layout.window:
        kept |= -layout.window[1] < t - u < layout.window[0]
    if layout.mask and i < layout.mask.rows and j < layout.mask.columns:
        bit = i * layout.mask.columns + j
        kept |= bool(layout.mask.bits[bit // 8] >> (7 - bit % 8) & 1)
    kept |= any(low <= t - u and (high is None or t - u < high) for low, high in layout.bands)
    kept |= layout.chunk > 0 and i // layout.chunk == j // layout.chunk
    return kept and (u <= t or not causal)


def smallest(found: np.ndarray) -> tuple[int, int] | None:
    """The smallest true (t, u)."""
    flat = np.flatnonzero(found)
    return divmod(int(flat[0]), found.shape[1]) if flat.size else None


def smallest_return(kept: np.ndarray) -> tuple[int, int] | None:
    """The smallest (t', u) with u <= t < t', kept at t' and not at t."""
    tokens = len(kept)
    dropped = np.zeros(tokens, bool)
    for t in range(tokens):
        again = kept[t, : t + 1] & dropped[: t + 1]
        if again.any():
            return t, int(np.argmax(again))
        dropped[: t + 1] |= ~kept[t, : t + 1]
    return None


def random_term(r: random.Random, causal: bool, every: tuple[int, ...] = (1, 1, 2, 3, 4, 6)) -> Term:
    s = r.choice(every)
    bounds: dict[str, int] = {}
    if r.random() < 0.6:
        bounds["d_to"] = r.randint(1, 7)
    if r.random() < 0.3:
        bounds["d_from"] = r.randint(0 if causal else -6, 6)
    elif not causal and r.random() < 0.5:
        bounds["d_from"] = -r.randint(0, 5)
    for name, chance in (("j_from", 0.1), ("j_to", 0.2), ("i_from", 0.1), ("i_to", 0.1)):
        if r.random() < chance:
            bounds[name] = r.randint(0, 7)
    return Term(every=s, offset=r.randrange(s), width=r.randint(1, s) if r.random() < 0.3 else 1,
                anchor=r.choice([KEY, KEY, QUERY]), **bounds)  # fmt: skip


def random_layout(r: random.Random, causal: bool, opaque: float = 0.0, block: int = 3, chunks: bool = True) -> Layout:
    terms = tuple(random_term(r, causal) for _ in range(r.randint(0, 3)))
    window = (r.randint(1, 5 * block), 1 if causal else r.randint(1, 4 * block)) if r.random() < 0.3 else None
    sink = r.randint(1, 3 * block) if r.random() < 0.25 else 0
    drawn = Random(r.randint(1, 2), r.randint(0, 9)) if r.random() < opaque else None
    mask = None
    if r.random() < opaque:
        rows, columns = r.randint(1, 9), r.randint(1, 9)
        bits = np.packbits(np.array([r.random() < 0.7 for _ in range(rows * columns)]))
        mask = Mask(rows, columns, bits.tobytes())
    layout = Layout(terms, window, sink, drawn, mask)
    which = crc32(str(layout).encode()) % 8 if chunks else 7  # not drawn from r: every seed keeps its other parts
    if causal and chunks and crc32(str(layout).encode(), 1) % 4 == 0:
        low = crc32(str(layout).encode(), 2) % (5 * block)
        layout = replace(layout, bands=((low, low + 1 + crc32(str(layout).encode(), 3) % (3 * block)),))
    return replace(layout, chunk=(2, 3, 4, 0, 0, 0, 0, 0)[which])


def classes_of(layouts: list[list[Layout]], *, block: int, causal: bool, kv_heads: int) -> Classes:
    """[layer][head] layouts as Classes."""
    number: dict[Layout, int] = {}
    of = tuple(tuple(number.setdefault(layout, len(number)) for layout in layer) for layer in layouts)
    return Classes("x", block, causal, 64, len(layouts[0]), kv_heads, tuple(number), of)
