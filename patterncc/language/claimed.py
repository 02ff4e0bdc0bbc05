"""One entry of `shards` as it is written, with the heads that it claims and its mask."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path as FolderPath
from typing import TYPE_CHECKING

from patterncc.errors import counted
from patterncc.language.claims import Reporter
from patterncc.language.document import BAD, Path
from patterncc.language.masks import MaskError, read_mask
from patterncc.language.token_masks import MaskWarning, token_level

if TYPE_CHECKING:
    import numpy as np

    from patterncc.language.shard import Shard
    from patterncc.language.written import Written


class Claimed:
    """An entry, its path in the file, the heads that it claims (None: unknown), its mask, and what of the pattern
    decides what it means. Mistakes in the mask are reported."""

    def __init__(
        self,
        shard: Shard,
        path: Path,
        heads: Sequence[int] | None,
        pattern: Written,
        layer_heads: int,
        folder: FolderPath | None,
        report: Reporter,
    ) -> None:
        self.shard, self.path, self.heads, self._report = shard, path, heads, report
        self.causal, self.block = pattern.causal, pattern.block
        self.mask = self._load_mask(folder, layer_heads)

    def note(
        self,
        path: Path,
        message: str,
        help: str | None = None,
        *,
        key: bool = False,
        inside: tuple[int, int] | None = None,
    ) -> None:
        """Report a mistake at a path below the entry."""
        self._report((*self.path, *path), message, help, key=key, inside=inside)

    def _load_mask(self, folder: FolderPath | None, heads: int) -> np.ndarray | None:
        """The mask, bool [rows, columns] or [the layer's heads, rows, columns]."""
        name = self.shard.mask
        if name is None or name is BAD:
            return None
        try:
            mask = read_mask(name, folder)
        except MaskError as error:
            self.note(("mask",), error.message, error.help)
            return None
        if self.block is not BAD and (doubt := token_level(mask, name, self.block)):
            warnings.warn(doubt, MaskWarning, stacklevel=1)  # who reads it twice is told once
        if mask.ndim == 2:
            return mask
        if heads is BAD or self.heads is None:
            return None
        if len(mask) == heads:
            return mask
        if len(mask) == len(self.heads):  # one for each of the entry's heads, in their order
            import numpy as np

            of_head = np.zeros((heads, *mask.shape[1:]), dtype=np.bool_)
            of_head[list(self.heads)] = mask
            return of_head
        help = f"it must be {heads}, the layer's" + (
            f", or {len(self.heads)}, the entry's" if len(self.heads) != heads else ""
        )
        self.note(("mask",), f"the mask is for {counted(len(mask), 'head')}", help)
        return None
