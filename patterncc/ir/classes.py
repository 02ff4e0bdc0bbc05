"""The layouts of a whole pattern: of every head of every layer as the file gives them (`Layouts`), then each once, for
the class of heads that share it (`Classes`). Both print themselves and read themselves back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from patterncc.ir.layout import Layout
from patterncc.language.shape import Shape

T = TypeVar("T")


@dataclass(frozen=True)
class Layouts:
    """The layout of every head of every layer, each written once for all heads that took it from the same rules. Two of
    them may still be equal.

    >>> print(Layouts((Layout.parse("d<16"), Layout.parse("all")), ((0, 0, 1), (1, 1, 1))))
    layout 0: d<16
    layout 1: all
    layers 0: 0*2 1
    layers 1: 1*3
    """

    distinct: tuple[Layout, ...]
    of: tuple[tuple[int, ...], ...]  # [layer][head] -> place in `distinct`

    def layout(self, layer: int, head: int) -> Layout:
        return self.distinct[self.of[layer][head]]

    def __str__(self) -> str:
        return "\n".join([*(f"layout {k}: {layout}" for k, layout in enumerate(self.distinct)), *_layer_lines(self.of)])

    @staticmethod
    def parse(text: str) -> Layouts:
        """Read back what `str` printed."""
        parts = [line.split(": ", 1) for line in text.splitlines()]
        distinct = tuple(Layout.parse(rest) for key, rest in parts if key.startswith("layout "))
        return Layouts(distinct, _parse_layers(parts))


@dataclass(frozen=True)
class Classes:
    """A whole pattern: one layout a class, and the class of every head of every layer.

    >>> near, all = Layout.parse("d<16"), Layout.parse("all")
    >>> print(Classes("demo", 64, True, 128, 4, 2, (near, all), of=((1, 1, 1, 1), (0, 0, 1, 1))))
    demo: block 64, causal, head_dim 128, heads 4, kv_heads 2
    class 0: d<16
    class 1: all
    layers 0: 1*4
    layers 1: 0*2 1*2
    """

    name: str
    block: int
    causal: bool
    head_dim: int
    heads: int
    kv_heads: int
    layouts: tuple[Layout, ...]
    of: tuple[tuple[int, ...], ...]  # [layer][head] -> class
    softcap: float = 0.0  # scores s become softcap * tanh(s / softcap); 0: as they are
    sinks: bool = False  # whether callers must pass a logit for every query head
    v_head_dim: int = 0  # width of a value; given as 0, that of a head
    shapes: tuple[Shape, ...] = ()  # [layer]; () where every layer has the sizes above
    scale: float = 0.0  # of scores, where a call gives none; 0: head_dim ** -0.5 of each layer

    def __post_init__(self) -> None:
        object.__setattr__(self, "v_head_dim", self.v_head_dim or self.head_dim)

    def shape(self, layer: int) -> Shape:
        """Heads, KV heads and widths of a layer."""
        return (
            self.shapes[layer]
            if self.shapes
            else Shape(self.heads, self.kv_heads, self.head_dim, self.v_head_dim, self.sinks)
        )

    @property
    def layers(self) -> int:
        return len(self.of)

    def layout(self, layer: int, head: int) -> Layout:
        return self.layouts[self.of[layer][head]]

    def __str__(self) -> str:
        sizes = f"head_dim {self.head_dim}, heads {self.heads}, kv_heads {self.kv_heads}"
        sizes += f", v_head_dim {self.v_head_dim}" if self.v_head_dim != self.head_dim else ""
        sizes += f", scale {self.scale!r}" if self.scale else ""
        sizes += (f", softcap {self.softcap!r}" if self.softcap else "") + ", sinks" * self.sinks
        lines = [f"{self.name}: block {self.block}, {'causal' if self.causal else 'not causal'}, {sizes}"]
        lines += [f"class {k}: {layout}" for k, layout in enumerate(self.layouts)]
        lines += [f"shapes {span}: {shape}" for span, shape in _spans(self.shapes)]
        return "\n".join([*lines, *_layer_lines(self.of)])

    @staticmethod
    def parse(text: str) -> Classes:
        """Read back what `str` printed."""
        head, *lines = text.splitlines()
        found = re.fullmatch(
            r"(\w+): block (\d+), (not )?causal, head_dim (\d+), heads (\d+), kv_heads (\d+)(.*)", head
        )
        if not found:
            raise ValueError(f"not the first line of classes: {head!r}")
        block, head_dim, heads, kv_heads = (int(found[n]) for n in (2, 4, 5, 6))
        parts = [line.split(": ", 1) for line in lines]
        layouts = tuple(Layout.parse(rest) for key, rest in parts if key.startswith("class "))
        softcap = re.search(r", softcap ([^,]+)", found[7])
        scores = float(softcap[1]) if softcap else 0.0, found[7].endswith(", sinks")
        scale = re.search(r", scale ([^,]+)", found[7])
        values = re.search(r", v_head_dim (\d+)", found[7])
        sizes = head_dim, heads, kv_heads
        v_head_dim = int(values[1]) if values else 0
        shapes = tuple(Shape.parse(rest) for rest in _of_layers(parts, "shapes"))
        of = _parse_layers(parts)
        return Classes(
            found[1],
            block,
            not found[3],
            *sizes,
            layouts,
            of,
            *scores,
            v_head_dim,
            shapes,
            float(scale[1]) if scale else 0.0,
        )


def _layer_lines(of: tuple[tuple[int, ...], ...]) -> Iterator[str]:
    """A line for each run of equal layers: their heads' numbers, `k*n` for n heads in a row."""
    for span, row in _spans(of):
        runs = [(k, sum(1 for _ in run)) for k, run in groupby(row)]
        yield f"layers {span}: " + " ".join(f"{k}*{n}" if n > 1 else f"{k}" for k, n in runs)


def _parse_layers(parts: list[list[str]]) -> tuple[tuple[int, ...], ...]:
    """[layer][head] -> number, from those lines, split at their colons, that `_layer_lines` wrote."""
    runs = [[run.partition("*") for run in rest.split()] for rest in _of_layers(parts, "layers")]
    return tuple(tuple(int(k) for k, _, n in row for _ in range(int(n or 1))) for row in runs)


def _of_layers(parts: list[list[str]], word: str) -> list[str]:
    """What lines that begin with `word` and a span of layers say of each layer."""
    said: list[str] = []
    for key, rest in parts:
        if key.startswith(f"{word} "):
            first, _, last = key.removeprefix(f"{word} ").partition("-")
            said += [rest] * (int(last or first) - int(first) + 1)
    return said


def _spans(values: Sequence[T]) -> Iterator[tuple[str, T]]:
    """Runs of equal values: `0-3`, or `4` for a single one, and the value."""
    first = 0
    for value, same in groupby(values):
        last = first + sum(1 for _ in same) - 1
        yield f"{first}-{last}" if last > first else f"{first}", value
        first = last + 1
