"""What a pattern costs in two numbers: the KV cache that it keeps, and the pairs that it computes.

Layouts and KV heads that are alike are counted once, however many heads and layers have them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from patterncc.analysis.costs.live import held
from patterncc.analysis.costs.weights import token_pairs
from patterncc.ir.classes import Classes

LENGTH = 131_072  # tokens, where nobody says another length
SIZES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "fp8": 1, "int8": 1}


@dataclass(frozen=True)
class Price:
    """kv_bytes: K and V that all layers' compact caches hold after `length` tokens of one sequence; density: kept token
    pairs / causal token pairs (square ones when not causal), mean over heads and layers."""

    length: int
    kv_bytes: int
    density: float

    def __str__(self) -> str:
        """
        >>> str(Price(131_072, 70_778_880, 0.1381))
        '67.5 MiB, 13.8%'
        """
        return f"{amount(self.kv_bytes, 'B', 1024)}, {self.density:.1%}"


def price(classes: Classes, length: int = LENGTH, dtype: str = "bf16") -> Price:
    """The price of a pattern at `length` tokens. The time it takes depends only on the number of distinct layouts.

    >>> from patterncc.ir.layout import Layout
    >>> price(Classes("x", 64, True, 128, 2, 1, (Layout.parse("d<16 | j%16==3"),), ((0, 0),)), 131_072)
    Price(length=131072, kv_bytes=4685824, density=0.07691658465130119)
    """
    rows = Counter((row, classes.shape(layer)) for layer, row in enumerate(classes.of))
    heads: Counter[int] = Counter()
    groups: Counter[frozenset[int]] = Counter()  # numbers of K and V a token, of KV heads with these classes
    for (row, shape), layers in rows.items():
        for k, count in Counter(row).items():
            heads[k] += layers * count
        for start in range(0, shape.heads, shape.group):
            groups[frozenset(row[start : start + shape.group])] += layers * (shape.head_dim + shape.v_head_dim)
    pairs = sum(
        count * token_pairs(classes.layouts[k], classes.causal, classes.block, length) for k, count in heads.items()
    )
    whole = length * (length + 1) // 2 if classes.causal else length * length
    numbers = length * sum(groups.values())  # not causal: an earlier token may attend it
    if classes.causal:
        numbers = sum(
            count * held(tuple(classes.layouts[k] for k in sorted(group)), classes.block, length).tokens
            for group, count in groups.items()
        )
    return Price(length, numbers * SIZES[dtype], pairs / (whole * sum(heads.values())))


def amount(x: float, unit: str, step: int) -> str:
    """A number with its unit in three digits (four where three would need an exponent).

    >>> amount(1536, "B", 1024), amount(1_024_000, "B", 1024), amount(999.7e9, "FLOP", 1000), amount(48, "B", 1024)
    ('1.5 KiB', '1000 KiB', '1000 GFLOP', '48 B')
    """
    prefixes = ["", *(f"{prefix}i" if step == 1024 else prefix for prefix in "KMGTPEZY")]
    while x >= step and len(prefixes) > 1:
        x /= step
        prefixes.pop(0)
    figure = f"{x:.3g}" if x < 999.5 else f"{x:.0f}"
    return f"{figure} {prefixes[0]}{unit}"
