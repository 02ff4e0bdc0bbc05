"""A boolean mask → the smallest rules of the language that equal it, head by head.

A mask is a sample of a pattern: its first T rows. A rule is accepted when it equals the sample exactly, and the
sample shows at least two periods of its stride and the end of the first chunk. A head that no rule explains stays an
explicit mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from patterncc.formats.block_rule import Mask, band, block_rule, chunk_of, prefix
from patterncc.formats.rules import Rule

BLOCKS = (128, 64, 32, 16)


@dataclass(frozen=True)
class Inferred:
    """Rules of one layer, one a head; `left[h]` is the block mask of a head that no rule explains, else None."""

    block: int
    causal: bool
    rules: tuple[Rule, ...]
    left: tuple[Mask | None, ...]
    periods: float  # the fewest periods of a stride or chunk that the sample shows; inf without any

    @property
    def explained(self) -> bool:
        return all(rest is None for rest in self.left)


def infer(mask: Mask, causal: bool | None = None) -> Inferred | None:
    """The rules that equal `mask` [heads, T, T] of tokens; None where no sparse block fits it to the token."""
    if causal is None:
        causal = not np.triu(mask.any(0), 1).any()
    fallback: Inferred | None = None
    for block in BLOCKS:
        if block > mask.shape[1]:
            continue
        heads = [_head(head, block, causal) for head in mask]
        if any(found is None for found in heads):
            continue
        rules, left, periods = zip(*(found for found in heads if found), strict=True)
        inferred = Inferred(block, causal, rules, left, min(periods))
        if inferred.explained:
            return inferred
        fallback = fallback or inferred
    return fallback


def infer_blocks(mask: Mask, block: int, causal: bool) -> Inferred:
    """The rules that equal a mask of blocks [heads, rows, columns], square."""
    heads = [block_rule(head, None, causal) for head in mask]
    rules, left, periods = zip(*heads, strict=True)
    return Inferred(block, causal, rules, left, min(periods))


def _head(mask: Mask, block: int, causal: bool) -> tuple[Rule, Mask | None, float] | None:
    """One head: in whole blocks if that is exact, else parts that are exact to the token over whole blocks."""
    whole = _whole(mask, block, causal)
    if (_tokens(whole, block, len(mask), causal) == mask).all():
        return block_rule(whole, None, causal)
    for sink in sorted({0, prefix(mask, causal)}):
        if found := _exact(mask, whole, block, causal, sink):
            return found
    return None


def _exact(mask: Mask, whole: Mask, block: int, causal: bool, sink: int) -> tuple[Rule, Mask | None, float] | None:
    """One head as a window, a chunk and `sink` first tokens, exact to the token, over whole blocks; None if not."""
    t = np.arange(len(mask))
    distance = t[:, None] - t
    before, after = band(mask, causal)
    chunk = chunk_of(mask, causal)
    if chunk % block:
        return None
    known = (distance < before) & (-distance < after) | (t < sink)
    if chunk:
        known |= t[:, None] // chunk == t // chunk
        if before <= 1 and after <= 1:
            before = 0
    if causal:
        known &= distance >= 0
    if (known | _tokens(whole, block, len(mask), causal) != mask).any():
        return None
    rule, left, periods = block_rule(whole, _whole(known, block, causal), causal)
    if not sink and rule.columns == tuple(range(len(rule.columns))):  # the first columns have a word of their own
        rule = replace(rule, sink=len(rule.columns) or None, columns=())
    rule = replace(
        rule,
        local=None if not before else f"{before} tokens" if causal else (f"{before} tokens", f"{after} tokens"),
        chunk=f"{chunk} tokens" if chunk else rule.chunk,
        sink=f"{sink} tokens" if sink else rule.sink,
    )
    return rule, left, min(periods, len(mask) / chunk if chunk else np.inf)


def _whole(mask: Mask, block: int, causal: bool) -> Mask:
    """Blocks of which the mask keeps every pair (that causality leaves): [rows, columns]."""
    length = len(mask)
    full = mask | np.triu(np.ones_like(mask), 1) if causal else mask
    count = -(-length // block)
    padded = np.ones((count * block, count * block), bool)
    padded[:length, :length] = full
    whole = np.asarray(padded.reshape(count, block, count, block).all((1, 3)))
    return np.tril(whole) if causal else whole


def _tokens(blocks: Mask, block: int, length: int, causal: bool) -> Mask:
    mask = blocks.repeat(block, 0).repeat(block, 1)[:length, :length]
    return np.tril(mask) if causal else mask
