"""Whether a mask that is read as one of blocks looks as if its entries were meant as tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class MaskWarning(UserWarning):
    """A mask that may not mean what its author thinks."""


def token_level(mask: np.ndarray, name: str, block: int) -> str | None:
    """A warning in words about a mask [rows, columns] or [heads, rows, columns] whose every head looks like tokens:
    square, of two blocks of rows at least, and either nothing is kept further from the diagonal than a block has
    tokens, but for first columns; or whole tiles of block x block are. None where it does not."""
    rows, columns = mask.shape[-2:]
    if rows != columns or rows < 2 * block:
        return None
    why = {_why(head, block) for head in mask.reshape(-1, rows, columns)}
    if None in why:
        return None
    return (
        f"mask {name} is read as {rows:,} x {columns:,} blocks, {rows * block:,} tokens, past which nothing is kept; "
        f"it looks like one of tokens: {' or '.join(sorted(filter(None, why)))}. If it is one, "
        f"`patterncc import {name} --level token` writes the pattern that it means"
    )


def _why(mask: np.ndarray, block: int) -> str | None:
    import numpy as np

    if not mask.diagonal().all():
        return None
    behind, ahead = np.tril(mask, -block)[:, block:].any(), np.triu(mask, block)[:, block:].any()
    if not behind and not ahead:
        return f"it keeps nothing {block} entries or more from its diagonal"
    tiles = len(mask) // block
    if len(mask) % block:
        return None
    square = mask.reshape(tiles, block, tiles, block)
    some, every = np.asarray(square.any((1, 3))), np.asarray(square.all((1, 3)))
    own = square[np.arange(tiles), :, np.arange(tiles)]  # [tiles, block, block]
    triangle = bool((own == np.tri(block, dtype=bool)).all())
    if triangle:  # cut along the diagonal
        np.fill_diagonal(every, True)
    asked = np.tril(np.ones_like(some)) if triangle else np.ones_like(some)
    if (some == every).all() and (asked & ~some).any():
        return f"it is made of tiles of {block} x {block}"
    return None
