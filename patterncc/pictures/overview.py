"""A pattern at a glance: of which kind every head of every layer is, and how much a head of each kind keeps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import log2
from string import ascii_letters

from patterncc.analysis.costs.price import LENGTH
from patterncc.analysis.costs.weights import token_pairs
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout, Mask
from patterncc.pictures.palette import FIELD, PARTS, mix
from patterncc.pictures.parts import KINDS, parts_of
from patterncc.pictures.view import spell

MOST = 24  # kinds that are told apart by their rules; where there are more, by their parts and by halves of density
FAR = ("dense", "stride", "chunk", "globals", "random", "mask", "sink", "local")  # the first that occurs names the hue
WEAKEST = 0.4  # of a hue, for the sparsest kind that has it


@dataclass(frozen=True)
class Kind:
    """Heads whose layouts are the same but for offsets and seeds."""

    letter: str  # of the picture: A keeps most
    parts: str  # the language's keys, such as "local + stride"; "nothing"
    rule: str  # the layout of one of them, with * for what differs
    least: (
        float  # kept token pairs / (causal) token pairs, of the head that keeps least, and of the one that keeps most
    )
    most: float
    count: int  # heads, over all layers
    where: str  # "layers 2-31, heads 0-27"; nothing where there are several patterns
    strength: float  # of its hue in the picture, more where more is kept: distinct for kinds with one hue
    layout: Layout  # of its first head

    @property
    def density(self) -> str:
        """Of its heads, in words.

        >>> Kind("A", "dense", "all", 0.0712, 0.0768, 2, "", 1.0, Layout()).density
        '7.1-7.7%'
        """
        low, high = f"{100 * self.least:.1f}", f"{100 * self.most:.1f}"
        return f"{low}%" if low == high else f"{low}-{high}%"

    def colour(self, field: str = FIELD) -> str:
        """Its hue, mixed into the colour of what is not kept."""
        return mix(field, PARTS.get(hue(self.layout), field), self.strength)


@dataclass(frozen=True)
class Overview:
    """The kinds of one pattern's heads, or of several patterns', densest first."""

    length: int  # tokens at which density is counted
    kinds: tuple[Kind, ...]
    cells: tuple[tuple[tuple[int, ...], ...], ...]  # [pattern][layer][head] -> number of the kind

    def densities(self, classes: Classes, number: int = 0) -> list[float]:
        """The mean density of each layer's heads, of the pattern with this number."""
        shares = _shares(classes, self.length)
        return [sum(shares[k] for k in of) / len(of) for of in classes.of]


def overview(*patterns: Classes, length: int = LENGTH) -> Overview:
    """The kinds of the heads of some patterns, with their densities at `length` tokens.

    >>> near, far, all = map(Layout.parse, ("d<2 | j%4==0", "d<2 | j%4==1", "all"))
    >>> found = overview(Classes("x", 16, True, 64, 2, 1, (near, far, all), ((2, 2), (0, 1))), length=1600)
    >>> [(kind.letter, kind.parts, kind.rule, kind.density, kind.where) for kind in found.kinds]
    [('A', 'dense', 'all', '100.0%', 'layer 0'), ('B', 'local + stride', 'd<2 | j%4==*', '27.5-28.0%', 'layer 1')]
    >>> found.cells
    (((0, 0), (1, 1)),)
    """
    shares = [_shares(classes, length) for classes in patterns]
    used = [sorted({k for line in classes.of for k in line}) for classes in patterns]
    keys = [{k: _alike(c.layouts[k], c) for k in of} for c, of in zip(patterns, used, strict=True)]
    if len({key for line in keys for key in line.values()}) > MOST:
        keys = [
            {k: (words(c.layouts[k]), round(log2(of[k])) if of[k] else None) for k in line}
            for c, of, line in zip(patterns, shares, used, strict=True)
        ]
    members: dict[object, list[tuple[int, int]]] = {}  # key -> (pattern, class)
    for p, line in enumerate(keys):
        for number, key in line.items():
            members.setdefault(key, []).append((p, number))
    found = sorted(members.values(), key=lambda of: (-max(shares[p][k] for p, k in of), of))
    strengths = _strengths([patterns[p].layouts[k] for (p, k), *_ in found])
    kinds, number_of = [], {}
    for n, of in enumerate(found):
        number_of |= dict.fromkeys(of, n)
        kinds.append(_kind(n, of, patterns, shares, strengths[n]))
    cells = tuple(
        tuple(tuple(number_of[p, k] for k in line) for line in classes.of) for p, classes in enumerate(patterns)
    )
    return Overview(length, tuple(kinds), cells)


def runs(lines: Sequence[tuple[int, ...]]) -> list[tuple[range, tuple[int, ...]]]:
    """Equal neighbouring layers together.

    >>> runs([(0, 0), (1, 0), (1, 0)])
    [(range(0, 1), (0, 0)), (range(1, 3), (1, 0))]
    """
    found, first = [], 0
    for line, same in groupby(lines):
        last = first + sum(1 for _ in same)
        found.append((range(first, last), line))
        first = last
    return found


def words(layout: Layout) -> str:
    """The keys of the language that a layout's parts belong to.

    >>> words(Layout.parse("d<2 | j%4==0 | sink 4 tokens")), words(Layout())
    ('local + stride + sink', 'nothing')
    """
    kinds = {part.kind for part in parts_of(layout)}
    return " + ".join(kind for kind in KINDS if kind in kinds) or "nothing"


def hue(layout: Layout) -> str:
    """The key whose colour a head of this layout has: of its parts the one that reaches farthest."""
    kinds = {part.kind for part in parts_of(layout)}
    return next((kind for kind in FAR if kind in kinds), "nothing")


def _shares(classes: Classes, length: int) -> list[float]:
    whole = length * (length + 1) // 2 if classes.causal else length * length
    return [token_pairs(layout, classes.causal, classes.block, length) / whole for layout in classes.layouts]


def _alike(layout: Layout, classes: Classes) -> object:
    """What heads of one kind have in common: their layouts without offsets, seeds and the bits of masks."""
    terms = tuple(replace(term, offset=0) for term in layout.terms)
    mask = layout.mask and Mask(layout.mask.rows, layout.mask.columns, b"")
    random = layout.random and replace(layout.random, seed=0)
    return replace(layout, terms=terms, mask=mask, random=random), classes.block, classes.causal


def _kind(
    n: int, of: list[tuple[int, int]], patterns: tuple[Classes, ...], shares: list[list[float]], strength: float
) -> Kind:
    """The kind of number n, of these classes (pattern, class); shares [pattern][class] are what heads keep."""
    densities = [shares[p][k] for p, k in of]
    layouts = [patterns[p].layouts[k] for p, k in of]
    count, places = 0, []
    for p, classes in enumerate(patterns):
        mine = {k for q, k in of if q == p}
        heads = {layer: tuple(h for h, k in enumerate(line) if k in mine) for layer, line in enumerate(classes.of)}
        heads = {layer: some for layer, some in heads.items() if some}
        count += sum(map(len, heads.values()))
        places += [_place(heads, classes)] if heads else []
    return Kind(
        ascii_letters[26:][n] if n < 26 else ascii_letters[n - 26],
        words(layouts[0]),
        _rule([str(layout) for layout in layouts]),
        min(densities),
        max(densities),
        count,
        places[0] if len(patterns) == 1 else "",
        strength,
        layouts[0],
    )


def _place(heads: dict[int, tuple[int, ...]], classes: Classes) -> str:
    """Where a kind is found: its layers, and its heads where they are the same in all of these."""
    layers = spell("layer", heads) if len(heads) < classes.layers else "every layer"
    some = set(heads.values())
    if len(some) > 1:
        return f"{layers}, not the same heads"
    (same,) = some
    all_heads = all(len(same) == len(classes.of[layer]) for layer in heads)
    return layers if all_heads else f"{layers}, {spell('head', same)}"


def _rule(texts: list[str]) -> str:
    """One of the layouts' texts; where their numbers differ, * stands."""
    first = texts[0] if len(texts[0]) < 400 else re.sub(r"(mask \d+x\d+) [0-9a-f]+", r"\1", texts[0])
    pieces = [re.split(r"(\d+)", re.sub(r"(mask \d+x\d+) [0-9a-f]+", r"\1", text)) for text in texts]
    if len({tuple(piece[::2]) for piece in pieces}) > 1:
        return first if len(set(texts)) == 1 else "*"
    return "".join(column[0] if len(set(column)) == 1 else "*" for column in zip(*pieces, strict=True))


def _strengths(layouts: list[Layout]) -> list[float]:
    """Of kinds in the order of their densities: evenly spread from 1 down, for each hue."""
    total = Counter(hue(layout) for layout in layouts)
    seen: Counter[str] = Counter()
    strengths = []
    for layout in layouts:
        name = hue(layout)
        strengths.append(1 - (1 - WEAKEST) * seen[name] / max(total[name] - 1, 1))
        seen[name] += 1
    return strengths
