"""DeepSpeed's `sparse_attention` JSON → a pattern: the modes dense, fixed, variable, bigbird and bslongformer.

What each mode keeps is stated in DeepSpeed's documentation of sparse attention and was checked against the layouts of
its release 0.18.9. A layout there is a mask of blocks; two things depend on its length and are written differently
here: the global columns of `fixed` in a last, incomplete window, and random blocks, which are frozen into a mask file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from patterncc.errors import did_you_mean, quote
from patterncc.formats.imported import Imported, numbers, whole
from patterncc.formats.places import WrongValue
from patterncc.formats.rules import Rule, Shape, Stride, to_yaml
from patterncc.language.limits import MOST_HEAD_DIM

MODES = ("dense", "fixed", "variable", "bigbird", "bslongformer")
FROZEN_TOKENS = 4096  # length of a frozen random mask, where none is asked for


def read_deepspeed(document: dict[str, Any], name: str, heads: int | None, length: int | None) -> Imported:
    """The pattern of a `sparse_attention` section; `length` is that of a frozen mask, in tokens."""
    section = document.get("sparse_attention", document)
    mode = str(section.get("mode", "fixed"))
    if mode not in MODES:
        close = did_you_mean(mode, MODES)
        raise WrongValue(
            "mode", f"`mode` is {quote(mode, 40)}", f"did you mean {close}?" if close else f"one of {', '.join(MODES)}"
        )
    block = whole(section, "block", 16)
    if block not in (16, 32, 64, 128):
        raise WrongValue("block", f"`block` is {block}; a pattern's block is 16, 32, 64 or 128")
    attention = section.get("attention", "bidirectional")
    if attention not in ("unidirectional", "bidirectional"):
        raise WrongValue(
            "attention", f"`attention` is {quote(str(attention), 40)}; expected unidirectional or bidirectional"
        )
    causal = attention == "unidirectional" and mode != "dense"
    kinds = whole(section, "num_different_global_patterns", 1) if section.get("different_layout_per_head") else 1
    heads = heads or whole(section, "num_heads", kinds, most=4096)
    notes: list[str] = []
    masks: dict[str, np.ndarray] = {}
    rules = [_rule(section, mode, head, causal, notes) for head in range(heads)]
    drawn = whole(section, "num_random_blocks", 1 if mode == "bigbird" else 0, least=0) if mode != "fixed" else 0
    if drawn and mode in ("variable", "bigbird"):
        rows = -(-(length or FROZEN_TOKENS) // block)
        mask = _frozen(rows, heads, drawn, causal, bool(section.get("different_layout_per_head")))
        masks[f"{name}_random.npy"] = mask
        rules = [replace(rule, mask=f"{name}_random.npy") for rule in rules]
        notes.append(f"random blocks are drawn once and frozen into {name}_random.npy, for {rows * block:,} tokens")
    about = f"DeepSpeed's sparse attention, mode {mode}."
    shape = Shape(name, about, heads, heads, whole(section, "head_dim", 64, most=MOST_HEAD_DIM), 1, block, causal)
    yaml = to_yaml(shape, [rules], [f"Source: DeepSpeed sparse_attention, mode {mode}.", *dict.fromkeys(notes)])
    return Imported(name, yaml, "deepspeed", not drawn and not notes, tuple(dict.fromkeys(notes)), masks)


def _rule(section: dict[str, Any], mode: str, head: int, causal: bool, notes: list[str]) -> Rule:
    """What a head keeps in this mode, random blocks left out; WrongValue for what the language cannot say."""
    if mode == "dense":
        return Rule(dense=True)
    horizontal = bool(section.get("horizontal_global_attention"))
    if mode == "fixed":
        return _fixed(section, head, causal, horizontal, notes)
    if mode == "variable":
        windows = numbers(section, "local_window_blocks", [4])
        if len(set(windows)) != 1:
            raise WrongValue(
                "local_window_blocks",
                f"`local_window_blocks` is {windows}: windows of different sizes are no rule of this language",
                "write the layout as a mask: numpy.save('mask.npy', layout.bool()) and `patterncc import mask.npy`",
            )
        columns = _indices(section)
        return Rule(chunk=windows[0], columns=columns, rows=columns if horizontal and not causal else ())
    reach = whole(section, "num_sliding_window_blocks", 3) // 2 + 1
    if mode == "bigbird":
        columns = tuple(range(whole(section, "num_global_blocks", 1)))
    else:
        columns = _indices(section)
    # Of BigBird's first blocks the rows hold, below the diagonal, no more than the columns do.
    return Rule(local=reach, columns=columns, rows=() if causal and mode == "bigbird" else columns)


def _fixed(section: dict[str, Any], head: int, causal: bool, horizontal: bool, notes: list[str]) -> Rule:
    """A window of blocks that does not slide, and some columns of each window global: Sparse Transformer's `fixed`."""
    window, width = whole(section, "num_local_blocks", 4), whole(section, "num_global_blocks", 1)
    kinds = whole(section, "num_different_global_patterns", 1)
    which = head % kinds if section.get("different_layout_per_head") else 0
    first = window - (1 + which) * width
    if window % width or first < 0:
        raise WrongValue(
            "num_local_blocks",
            f"`num_local_blocks` {window} does not hold {kinds} times `num_global_blocks` {width} whole",
            "DeepSpeed refuses this as well",
        )
    notes.append("in a last, incomplete window DeepSpeed moves the global columns; here they stay where they are")
    if horizontal and not causal:
        raise WrongValue(
            "horizontal_global_attention",
            "`horizontal_global_attention` of mode fixed makes rows global at every length, which no part says",
            "write the layout as a mask: numpy.save('mask.npy', layout.bool()) and `patterncc import mask.npy`",
        )
    return Rule(chunk=window, strides=(Stride(window, first, width),))


def _indices(section: dict[str, Any]) -> tuple[int, ...]:
    """Global blocks: single ones, or ranges where `global_block_end_indices` says their ends."""
    starts = numbers(section, "global_block_indices", [0])
    if section.get("global_block_end_indices") is None:
        return tuple(starts)
    ends = numbers(section, "global_block_end_indices", [])
    if len(ends) != len(starts) or any(a >= b for a, b in zip(starts, ends, strict=True)):
        raise WrongValue(
            "global_block_end_indices",
            "`global_block_end_indices` must hold a larger number for each of `global_block_indices`",
        )
    return tuple(sorted({block for a, b in zip(starts, ends, strict=True) for block in range(a, b)}))


def _frozen(rows: int, heads: int, drawn: int, causal: bool, each: bool) -> np.ndarray:
    """`drawn` random columns a row, [heads, rows, rows] or [rows, rows]; of the past where the pattern is causal."""
    generator = np.random.default_rng(0)
    mask = np.zeros((heads if each else 1, rows, rows), bool)
    for head in mask:
        for row in range(rows):
            columns = row + 1 if causal else rows
            head[row, generator.permutation(columns)[:drawn]] = True
    return mask if each else mask[0]
