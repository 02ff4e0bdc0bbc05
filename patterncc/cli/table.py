"""`patterncc table`: the columns of every row of a head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patterncc.cli import output as out
from patterncc.errors import UsageError, counted, numbered, quote
from patterncc.files import replace
from patterncc.language import load
from patterncc.language.limits import MOST_TOKENS
from patterncc.language.model import Pattern
from patterncc.passes import lower
from patterncc.runtime.gallery import find

UNITS = {"": 1, "k": 1024, "m": 1024**2}


def run(name: str, length: str, layer: int, head: int, json: bool, output: Path | None) -> int:
    """Print the table as ranges, as JSON, or write its arrays."""
    from patterncc.passes.lower_table import lower_table

    pattern = load(find(name))
    count = tokens(length)
    rows = blocks(pattern, count)
    check_place(pattern, layer, head)
    if output is not None and output.suffix != ".npz":
        raise UsageError(f"cannot write {output}", "a table's file ends in .npz")
    layout = lower(pattern).layout(layer, head)
    sizes = {"block": pattern.block, "rows": rows, "columns": rows}
    table = lower_table(layout, causal=pattern.causal, **sizes, tokens=count)
    facts = {"name": pattern.name, **sizes, "layer": layer, "head": head}
    if output is not None:
        save(output, {"pointers": table.pointers, "columns": table.columns}, facts)
        out.note(f"{counted(table.entries, 'entry', 'entries')} in {output}")
    if json:
        out.document(facts | {"table": table.tolist()})
    elif output is None:
        print(table)
    return 0


def save(path: Path, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write pointers and columns, and beside them what they are of."""
    import numpy as np

    more: dict[str, Any] = {key: np.array(value) for key, value in facts.items() if key not in arrays}
    replace(path, lambda file: np.savez(file, **arrays, **more))


def tokens(length: str) -> int:
    """The tokens of --length; UsageError for a value that is no length or is too large.

    >>> tokens("131_072"), tokens("128k")
    (131072, 131072)
    """
    found = re.fullmatch(r"(-?[0-9][0-9_,]{0,30})\s*([kKmM]?)", length.strip())
    if not found:
        raise UsageError(f"--length is {quote(length)}; it takes a number of tokens", "131072, 131_072 or 128k")
    number = int(re.sub("[_,]", "", found[1])) * UNITS[found[2].lower()]
    if not 1 <= number <= MOST_TOKENS:
        raise UsageError(f"--length is {number:,}; it takes 1 to {MOST_TOKENS:,} tokens")
    return number


def blocks(pattern: Pattern, length: int) -> int:
    """The block rows of so many tokens."""
    return -(-length // pattern.block)


def check_place(pattern: Pattern, layer: int | None, head: int | None) -> None:
    """UsageError for a layer or head that the pattern does not have."""
    heads = pattern.shape(layer if layer is not None and 0 <= layer < pattern.layers else 0).heads
    for option, given, count in (("--layer", layer, pattern.layers), ("--head", head, heads)):
        if given is not None and not 0 <= given < count:
            raise UsageError(f"{option} is {given}; {pattern.name} has {numbered(option[2:], count)}")
