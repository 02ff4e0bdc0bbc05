"""What one head keeps, as a frozen value; and the rules of all heads and layers as YAML text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from patterncc.errors import clean
from patterncc.language.ranges import ranges

AMBIGUOUS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}  # to some YAML readers no text

Length = int | str  # blocks, or "N tokens"


@dataclass(frozen=True)
class Stride:
    """Column j with (j - offset) mod every < width; with `anchor: query`, i - j stands for j."""

    every: int
    offset: int = 0
    width: int = 1
    anchor: str = "key"
    first: int = 0  # distance in blocks from which it holds
    stop: int | None = None  # distance in blocks from which it does not hold any more

    def to_yaml(self) -> str:
        """
        >>> Stride(8, 3).to_yaml()
        '{every: 8, offset: 3}'
        """
        pairs = [("every", self.every, None), ("offset", self.offset, 0), ("width", self.width, 1)]
        pairs += [("anchor", self.anchor, "key"), ("from", self.first, 0), ("to", self.stop, None)]
        return "{" + ", ".join(f"{key}: {value}" for key, value, default in pairs if value != default) + "}"


@dataclass(frozen=True)
class Rule:
    """The parts of one head; nothing is kept by a rule without parts."""

    dense: bool = False
    local: Length | tuple[Length | None, Length | None] | None = None  # a pair: {before, after}
    chunk: Length | None = None
    sink: Length | None = None
    strides: tuple[Stride, ...] = ()
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    random: tuple[int, int] | None = None  # blocks, seed
    mask: str | None = None  # file name

    @property
    def keeps_own(self) -> bool:
        """Whether every row keeps its own block, at every length; of a mask that ends nobody knows."""
        near = any(
            one.first == 0 and (one.every == 1 or (one.anchor, one.offset) == ("query", 0)) for one in self.strides
        )
        return self.dense or self.local is not None or self.chunk is not None or near

    def lines(self) -> list[str]:
        """The YAML lines of one entry of `shards`, without `heads`."""
        if self.dense:
            return ["dense: true"]
        lines = []
        if isinstance(self.local, tuple):
            sides = zip(("before", "after"), self.local, strict=True)
            lines.append("local: {" + ", ".join(f"{key}: {value}" for key, value in sides if value is not None) + "}")
        elif self.local is not None:
            lines.append(f"local: {self.local}")
        lines += [f"{key}: {value}" for key, value in (("chunk", self.chunk), ("sink", self.sink)) if value]
        if self.strides:
            lines.append(f"strides: [{', '.join(stride.to_yaml() for stride in self.strides)}]")
        if self.rows or self.columns:
            sides = (("rows", self.rows), ("columns", self.columns))
            lines.append("globals: {" + ", ".join(f"{key}: {selectors(xs)}" for key, xs in sides if xs) + "}")
        if self.random:
            lines.append(f"random: {{blocks: {self.random[0]}, seed: {self.random[1]}}}")
        if self.mask:
            lines.append(f"mask: {json.dumps(self.mask)}")
        return lines


DENSE = Rule(dense=True)


@dataclass(frozen=True)
class Shape:
    """The head of a pattern file."""

    name: str
    about: str
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    block: int
    causal: bool = True
    extra: tuple[tuple[str, str], ...] = ()  # further top-level keys, such as softcap


def selectors(numbers: Sequence[int]) -> str:
    """Sorted numbers as a YAML list of ranges.

    >>> selectors([0, 1, 2, 5])
    '[0-2, 5]'
    """
    return f"[{selector(numbers)}]"


def selector(numbers: Sequence[int]) -> str:
    """Sorted numbers in the syntax of `heads`, without brackets.

    >>> selector([0, 1, 2, 5]), selector([1, 3, 5, 7, 9])
    ('0-2, 5', '1:10:2')
    """
    if (
        len(numbers) > 3
        and (step := numbers[1] - numbers[0]) > 1
        and list(numbers) == list(range(numbers[0], numbers[-1] + 1, step))
    ):
        return f"{numbers[0]}:{numbers[-1] + 1}:{step}"
    return ranges(numbers)


def shards(rules: Sequence[Rule], kv_heads: int, indent: str) -> list[str]:
    """The YAML entries of the heads' rules: equal heads share one, and heads that differ in one offset too."""
    groups: dict[Rule, list[int]] = {}
    for head, rule in enumerate(rules):
        groups.setdefault(_without_offset(rule), []).append(head)
    lines = []
    for common, heads in groups.items():
        named = "all" if len(heads) == len(rules) else _named(heads)
        lines.append(f"{indent}- heads: {named}")
        body = common.lines()
        if len(common.strides) == 1:
            offsets = [rules[head].strides[0].offset for head in heads]
            body = [line for line in body if not line.startswith("strides")] + _stride(
                common.strides[0], offsets, heads, len(rules) // kv_heads
            )
        lines += [f"{indent}  {line}" for line in body or ["local: 0"]]
    return lines


def _named(heads: Sequence[int]) -> str:
    text = selector(heads)
    return f"[{text}]" if "," in text else f'"{text}"' if ":" in text else text


def _without_offset(rule: Rule) -> Rule:
    if len(rule.strides) != 1:
        return rule
    return replace(rule, strides=(replace(rule.strides[0], offset=0),))


def _stride(stride: Stride, offsets: list[int], heads: Sequence[int], group: int) -> list[str]:
    """One stride of several heads, whose offsets are an expression if one fits, else a list."""
    if all(x == offsets[0] for x in offsets):
        offset = str(offsets[0])
    elif all(x == head % stride.every for x, head in zip(offsets, heads, strict=True)):
        offset = "h"
    elif all(x == head // group % stride.every for x, head in zip(offsets, heads, strict=True)):
        offset = "g"
    else:
        offset = str(offsets)
    if stride.anchor == "key" and not stride.first and stride.stop is None:
        lines = [f"stride: {stride.every}", f"offset: {offset}", f"width: {stride.width}"]
        return [line for line in lines if line not in ("offset: 0", "width: 1")]
    text = replace(stride, offset=0).to_yaml()[1:-1]
    return [f"strides: [{{{text}, offset: {offset}}}]" if offset != "0" else f"strides: [{{{text}}}]"]


def to_yaml(
    shape: Shape,
    layers: Sequence[Sequence[Rule]],
    comments: Sequence[str] = (),
    sizes: Sequence[Mapping[str, int | str]] = (),
) -> str:
    """The YAML text of a pattern whose layer l keeps layers[l], one rule a head (one for all heads if it is single).
    `sizes`: what a layer's entry of `layouts` says beside its shards, where layers differ in their sizes."""
    kinds: dict[tuple[Rule, ...], list[int]] = {}
    of_kind: dict[tuple[tuple[Rule, ...], tuple[tuple[str, int | str], ...]], list[int]] = {}
    for layer, rules in enumerate(layers):
        own = sizes[layer] if sizes else {}
        full = tuple(rules) * int(own.get("heads", shape.heads)) if len(rules) == 1 else tuple(rules)
        kinds.setdefault(full, []).append(layer)
        of_kind.setdefault((full, tuple(own.items())), []).append(layer)
    lines = [*(f"# {clean(comment)}" for comment in comments), "pattern: 1"]
    lines.append(f'name: "{shape.name}"' if shape.name.lower() in AMBIGUOUS else f"name: {shape.name}")
    if shape.about:
        lines.append(f"about: {json.dumps(shape.about, ensure_ascii=False)}")
    lines.append(f"heads: {shape.heads}")
    if shape.kv_heads != shape.heads:
        lines.append(f"kv_heads: {shape.kv_heads}")
    lines += [f"head_dim: {shape.head_dim}", f"layers: {shape.layers}", f"block: {shape.block}"]
    if not shape.causal:
        lines.append("causal: false")
    lines += [f"{key}: {value}" for key, value in shape.extra]
    dense = (Rule(dense=True),) * shape.heads
    rest = [kind for kind in kinds if kind != dense]
    if any(sizes):
        lines.append("layouts:")
        for (kind, own), numbers in of_kind.items():
            kv_heads = int(dict(own).get("kv_heads", shape.kv_heads))
            lines += [f"  - layers: {_named(numbers)}", *(f"    {key}: {value}" for key, value in own)]
            lines += ["    shards:", *shards(kind, kv_heads, "      ")]
    elif len(rest) == 1:
        lines += ["shards:", *shards(rest[0], shape.kv_heads, "  ")]
        if dense in kinds:
            lines.append(f"dense_layers: {_named(kinds[dense])}")
    elif not rest:
        lines += ["shards:", *shards(dense, shape.kv_heads, "  ")]
    else:
        lines.append("layouts:")
        for kind, numbers in kinds.items():
            lines += [f"  - layers: {_named(numbers)}", "    shards:", *shards(kind, shape.kv_heads, "      ")]
    no_row_is_empty = all(rule.keeps_own for kind in kinds for rule in kind)
    lines.append("promises: {rows: nonempty}" if no_row_is_empty else "promises: {}")
    return "\n".join(lines) + "\n"
