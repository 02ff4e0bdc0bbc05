"""A boolean mask, or a FlexAttention `mask_mod`, → the smallest pattern that equals it where it was sampled."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from patterncc.errors import UsageError, counted, quote, reason
from patterncc.formats.imported import Imported
from patterncc.formats.infer import Inferred, Mask, infer, infer_blocks
from patterncc.formats.rules import Rule, Shape, to_yaml

LARGEST = 2**28  # entries of a mask
SAMPLE = 1024  # tokens that a mask_mod is sampled over at first
CHECKED = 4  # times as many tokens are compared afterwards
LEVELS = ("auto", "token", "block")
WRITERS = {".npy": "numpy.save", ".npz": "numpy.savez", ".pt": "torch.save"}


def read_mask(path: Path, name: str, level: str, block: int | None) -> Imported:
    """The pattern of a mask file (.npy, .npz, .pt); bool [rows, columns], [heads, …] or [layers, heads, …]."""
    mask = _array(path)
    while mask.ndim < 4:
        mask = mask[None]
    if mask.shape[-1] != mask.shape[-2]:
        raise UsageError(
            f"the mask has {counted(mask.shape[-2], 'row')} and {counted(mask.shape[-1], 'column')}; it must be square"
        )
    causal = not np.triu(mask.any((0, 1)), 1).any()  # of all layers: so is the pattern
    found = [_infer(heads, causal, level, block) for heads in mask]
    if len({is_of_tokens for _, is_of_tokens in found}) > 1:
        raise UsageError(
            "some layers of this mask look like masks of tokens, others like masks of blocks",
            "say which: --level token, or --level block with --block N",
        )
    notes = (
        [f"read as a mask of {'tokens' if found[0][1] else 'blocks'}: --level says otherwise"]
        if level == "auto"
        else []
    )
    return _imported(name, [inferred for inferred, _ in found], notes, "mask", str(path.name), exact=False)


def _infer(heads: Mask, causal: bool, level: str, block: int | None) -> tuple[Inferred, bool]:
    """The rules of one layer, and whether the mask was taken as one of tokens."""
    tokens = infer(heads, causal) if level != "block" else None
    blocks = infer_blocks(heads, block or 64, causal) if level != "token" else None
    if tokens and blocks and tokens.explained and blocks.explained:
        raise UsageError(
            f"a mask of {heads.shape[1]} x {heads.shape[1]} like this may be one of tokens or one of blocks",
            "say which: --level token, or --level block with --block N",
        )
    if tokens and (blocks is None or not blocks.explained):
        return tokens, True
    if blocks is None:
        raise UsageError(
            "no block of 16, 32, 64 or 128 tokens fits this mask to the token",
            "a pattern keeps whole blocks, but for windows, chunks, sinks and the causal edge",
        )
    return blocks, False


def read_mask_mod(source: str, name: str, heads: int, length: int | None) -> Imported:
    """The pattern of `module:function`, a FlexAttention mask_mod(b, h, q_idx, kv_idx), sampled at batch 0."""
    import torch

    function = _function(source)
    sample = min(length or SAMPLE, 4096)
    mask = _sampled(function, heads, sample, torch)
    inferred = infer(mask)
    if inferred is None:
        raise UsageError(f"no block of 16, 32, 64 or 128 tokens says {quote(source, 60)} to the token")
    notes = [f"sampled over {counted(sample, 'token')}"]
    if inferred.explained:
        wrong = _compared(function, inferred, heads, sample * CHECKED, torch)
        if wrong is not None:
            raise UsageError(
                f"what holds for {counted(sample, 'token')} fails at query {wrong[1]:,}, key {wrong[2]:,}, "
                f"head {wrong[0]}",
                "the function changes further on: give a longer --length",
            )
        notes.append(f"compared at some 250,000 random pairs of {sample * CHECKED:,} tokens: no difference")
    return _imported(name, [inferred], notes, "mask_mod", source, exact=False)


def _function(source: str) -> Callable[..., Any]:
    module, _, attribute = source.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise UsageError(
            f"{quote(source, 80)} cannot be imported: {type(error).__name__}: {error}",
            "modules are looked for in this folder, then where Python finds others",
        ) from None
    finally:
        sys.path.pop(0)
    if not callable(function):
        raise UsageError(f"{quote(source, 80)} is no function", "a mask_mod takes (b, h, q_idx, kv_idx)")
    return function


def _called(function: Callable[..., Any], head: Any, q: Any, k: Any, torch: Any) -> Any:
    try:
        kept = function(torch.tensor(0), head, q, k)
        return torch.as_tensor(kept).to(torch.bool).expand(torch.broadcast_shapes(q.shape, k.shape)).numpy()
    except Exception as error:
        raise UsageError(
            f"the mask_mod failed: {type(error).__name__}: {error}",
            "it takes (b, h, q_idx, kv_idx), tensors of whole numbers, and gives a tensor of bool",
        ) from None


def _sampled(function: Callable[..., Any], heads: int, length: int, torch: Any) -> Mask:
    t = torch.arange(length)
    return np.stack([_called(function, torch.tensor(h), t[:, None], t[None], torch) for h in range(heads)])


def _compared(
    function: Callable[..., Any], inferred: Inferred, heads: int, length: int, torch: Any
) -> tuple[int, int, int] | None:
    """The first of many random pairs at which the rules and the function differ: head, query, key."""
    from patterncc.language import loads
    from patterncc.reference import keeps

    shape = Shape("sampled", "", heads, heads, 64, 1, inferred.block, inferred.causal)
    pattern = loads(to_yaml(shape, [inferred.rules]))
    generator = np.random.default_rng(0)
    t, u = (np.unique(generator.integers(0, length, 512)) for _ in range(2))
    for head in range(heads):
        queries, keys = torch.from_numpy(t)[:, None], torch.from_numpy(u)[None]
        expected = _called(function, torch.tensor(head), queries, keys, torch)
        wrong = np.argwhere(expected != keeps(pattern, 0, head, t, u))
        if len(wrong):
            return head, int(t[wrong[0][0]]), int(u[wrong[0][1]])
    return None


def _imported(name: str, layers: list[Inferred], notes: list[str], kind: str, source: str, *, exact: bool) -> Imported:
    """The pattern file of what was found in each layer, with a mask file for the heads that no rule explains."""
    block = min(inferred.block for inferred in layers)
    if any(inferred.block != block for inferred in layers):
        raise UsageError("the layers of this mask need different blocks", "import them one by one")
    heads = len(layers[0].rules)
    masks: dict[str, np.ndarray] = {}
    rules: list[list[Rule]] = []
    for number, inferred in enumerate(layers):
        left = [head for head, rest in enumerate(inferred.left) if rest is not None]
        file = None
        if left:
            file = f"{name}_mask.npy" if len(layers) == 1 else f"{name}_mask_{number}.npy"
            count = max(len(rest) for rest in inferred.left if rest is not None)
            masks[file] = np.stack([np.zeros((count, count), bool) if r is None else r for r in inferred.left])
            notes.append(f"no rule explains head{'s' * (len(left) > 1)} {', '.join(map(str, left))}: an explicit mask")
        rules.append([replace(rule, mask=file) if head in left else rule for head, rule in enumerate(inferred.rules)])
    seen = "sample" if kind == "mask_mod" else "mask"
    periods = min(inferred.periods for inferred in layers)
    if np.isfinite(periods):
        times = "once" if periods < 2 else f"{int(periods)} times"
        notes.append(
            f"every stride and chunk is seen whole {times} or more in the {seen}; past it they are taken to go on"
        )
    shape = Shape(name, "", heads, heads, 128, len(layers), block, all(inferred.causal for inferred in layers))
    comments = [f"Source: {source}.", *notes]
    return Imported(name, to_yaml(shape, rules, comments), kind, exact, tuple(notes), masks)


def _array(path: Path) -> Mask:
    """The boolean array of a .npy, .npz or .pt file with 2, 3 or 4 dimensions."""
    try:
        if path.suffix == ".pt":
            import torch

            array: Any = torch.load(path, map_location="cpu", weights_only=True)
            array = array.numpy() if isinstance(array, torch.Tensor) else array
        else:
            array = np.load(path, allow_pickle=False)
            if path.suffix == ".npz":
                if len(array.files) != 1:
                    raise UsageError(f"{quote(path.name)} holds {len(array.files)} arrays; it must hold one")
                array = array[array.files[0]]
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"the file cannot be read: {reason(error)}") from None
    except Exception:
        raise UsageError("the file cannot be read as a mask", f"it is none that {WRITERS[path.suffix]} wrote") from None
    if not isinstance(array, np.ndarray) or array.dtype != np.bool_:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise UsageError(f"{quote(path.name)} holds {kind}, not bool", "save it as an array of bool")
    if array.ndim not in (2, 3, 4) or 0 in array.shape or array.size > LARGEST:
        raise UsageError(
            f"the mask has shape {list(array.shape)}; it must be [rows, columns], [heads, …] or [layers, heads, …]"
        )
    return array
