"""A pattern at one length → the arrays and the few lines of code with which another library applies it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patterncc.errors import UsageError, did_you_mean, quote
from patterncc.formats.blocks import NONE, WHOLE, Blocks, blocks_of, listed, same_in_groups
from patterncc.formats.loaders import LOADERS

if TYPE_CHECKING:
    from patterncc.language import Pattern

Arrays = dict[str, NDArray[np.generic]]
TILE = 128  # the block of FlexAttention and of FlashAttention-4
MOST_MASK = 2**30  # entries of a dense mask


@dataclass(frozen=True)
class Exported:
    """`files`: names and contents of what is written."""

    files: dict[str, bytes]
    notes: tuple[str, ...] = ()


def export(pattern: Pattern, target: str, length: int) -> Exported:
    """The files of one target; raises UsageError with the reason where it cannot say the pattern."""
    if target not in TARGETS:
        close = did_you_mean(target, TARGETS)
        raise UsageError(
            f"--to is {quote(target)}", f"did you mean {close}?" if close else f"it takes {', '.join(TARGETS)}"
        )
    sinks = any(shape.sinks for shape in pattern.shapes)
    for key, is_there in (("softcap", pattern.softcap), ("scale", pattern.scale), ("sinks", sinks)):
        if is_there:
            raise UsageError(f"the pattern says `{key}`, which is no mask: {target} must be told it by your own code")
    heads = sorted({shape.heads for shape in pattern.shapes})
    if len(heads) > 1:
        raise UsageError(
            f"layers have {' or '.join(map(str, heads))} heads; what is written is one array of heads for all layers",
            "export a pattern of the layers that have as many heads",
        )
    arrays, notes = TARGETS[target](pattern, length)
    stem = f"{pattern.name}_{target}"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    words = {"PATTERN_LENGTH": f"{length:,}", "PATTERN_TOKENS": str(length), "PATTERN_NAME": pattern.name}
    code = LOADERS[target]
    for word, value in words.items():
        code = code.replace(word, value)
    return Exported({f"{stem}.npz": buffer.getvalue(), f"{stem}.py": code.encode()}, notes)


def _flex(pattern: Pattern, length: int) -> tuple[Arrays, tuple[str, ...]]:
    """Lists of tiles of 128 tokens, kept whole and in part, and the exact rule in the pattern's own blocks."""
    tiles, exact = blocks_of(pattern, length, TILE), blocks_of(pattern, length)
    part_count, part_columns = listed(tiles.states > WHOLE)
    whole_count, whole_columns = listed(tiles.states == WHOLE)
    return {
        "classes": tiles.classes,
        "part_count": part_count, "part_columns": part_columns,
        "whole_count": whole_count, "whole_columns": whole_columns,
        "states": exact.states, "parts": exact.parts,
    }, ()  # fmt: skip


def _torch(pattern: Pattern, length: int) -> tuple[Arrays, tuple[str, ...]]:
    """A dense boolean mask of each kind of head."""
    blocks = blocks_of(pattern, length)
    if len(blocks.states) * length * length > MOST_MASK:
        raise UsageError(
            f"dense masks of {length:,} tokens are larger than 1 GiB", "export for flex, or a shorter length"
        )
    return {"classes": blocks.classes, "masks": np.stack([blocks.mask(n) for n in range(len(blocks.states))])}, ()


def _grouped(pattern: Pattern, blocks: Blocks, library: str) -> NDArray[np.int32]:
    """The class of each KV head, [layers, kv_heads]; refuses query heads of a KV head that differ."""
    groups = {shape.group for shape in pattern.shapes}
    if len(groups) > 1:
        raise UsageError(
            f"{library} takes one pattern a KV head; query heads of a KV head are "
            f"{' or '.join(map(str, sorted(groups)))} here, by layer",
            "export a pattern of the layers that have as many KV heads",
        )
    (group,) = groups
    differ = same_in_groups(blocks, group)
    if differ:
        raise UsageError(
            f"{library} takes one pattern a KV head; KV head {differ[1]} of layer {differ[0]} has several",
            "write offsets by KV head, g, instead of by query head, h",
        )
    return np.ascontiguousarray(blocks.classes[:, ::group])


def _flashinfer(pattern: Pattern, length: int) -> tuple[Arrays, tuple[str, ...]]:
    """Block-sparse rows of each kind of KV head: pointers, columns, and the mask of each block."""
    blocks = blocks_of(pattern, length)
    arrays: Arrays = {"classes": _grouped(pattern, blocks, "FlashInfer's block-sparse attention")}
    if length % blocks.size:
        raise UsageError(
            f"FlashInfer takes whole blocks, and {length:,} is no multiple of {blocks.size}",
            f"take --length {-(-length // blocks.size) * blocks.size}",
        )
    table = np.concatenate([np.zeros_like(blocks.parts[:1]), np.ones_like(blocks.parts[:1]), blocks.parts])
    for number, states in enumerate(blocks.states):
        kept = states != NONE
        arrays[f"pointers_{number}"] = np.concatenate([[0], kept.sum(1).cumsum()]).astype(np.int32)
        arrays[f"columns_{number}"] = np.nonzero(kept)[1].astype(np.int32)
        arrays[f"masks_{number}"] = table[states[kept]]
    arrays["block"] = np.array(blocks.size)
    return arrays, ("one plan a kind of KV head: call the wrapper once for each, with its heads",)


def _flashmask(pattern: Pattern, length: int) -> tuple[Arrays, tuple[str, ...]]:
    """For each key the rows between which it is masked: [classes, length, 2] (causal) or 4."""
    blocks = blocks_of(pattern, length)
    arrays: Arrays = {"classes": _grouped(pattern, blocks, "FlashMask")}
    bounds = [_bounds(blocks.mask(number), pattern.causal) for number in range(len(blocks.states))]
    arrays["bounds"] = np.stack(bounds)
    arrays["causal"] = np.array(pattern.causal)
    return arrays, ()


def _bounds(mask: NDArray[np.bool_], causal: bool) -> NDArray[np.int32]:
    """Where each key is masked: below the diagonal from row a to row b, and (not causal) above it from c to d."""
    t = np.arange(len(mask))
    sides = [np.where(t[:, None] >= t, ~mask, False)] + ([] if causal else [np.where(t[:, None] < t, ~mask, False)])
    columns = []
    for masked in sides:
        some = masked.any(0)
        first = np.where(some, masked.argmax(0), len(mask))
        last = np.where(some, len(mask) - masked[::-1].argmax(0), len(mask))
        torn = np.flatnonzero(masked.sum(0) != last - first)
        if len(torn):
            raise UsageError(
                f"FlashMask masks one range of rows a key, and key {torn[0]:,} is masked in several",
                "windows with strides of the key, sinks and dense heads fit; strides of the distance do not",
            )
        columns += [first, last]
    return np.stack(columns, -1).astype(np.int32)


def _fa4(pattern: Pattern, length: int) -> tuple[Arrays, tuple[str, ...]]:
    """Lists of blocks of 128 tokens, kept whole, and cut by the diagonal alone."""
    tiles = blocks_of(pattern, length, TILE)
    cut = tiles.states > WHOLE
    rows, columns = np.nonzero(cut.any(0))
    if not pattern.causal and cut.any():
        raise UsageError(
            "a block of 128 tokens is kept in part, which FlashAttention-4 says by a mask function in CuTe",
            "use `block: 128` and windows in blocks",
        )
    if (rows != columns).any() or (cut & (tiles.states != tiles.triangle())).any():
        raise UsageError(
            "a block of 128 tokens is kept in part beside the diagonal, which FlashAttention-4 says by a mask function "
            "in CuTe",
            "use `block: 128` and windows in blocks",
        )
    part_count, part_columns = listed(cut)
    whole_count, whole_columns = listed(tiles.states == WHOLE)
    return {
        "classes": tiles.classes, "causal": np.array(pattern.causal),
        "part_count": part_count, "part_columns": part_columns,
        "whole_count": whole_count, "whole_columns": whole_columns,
    }, ()  # fmt: skip


TARGETS: dict[str, Callable[[Pattern, int], tuple[Arrays, tuple[str, ...]]]] = {
    "flex": _flex,
    "flashinfer": _flashinfer,
    "flashmask": _flashmask,
    "fa4": _fa4,
    "torch": _torch,
}
