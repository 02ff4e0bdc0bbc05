"""Proofs: time against heads, strides and how coprime they are; the hard covers; and all that the gallery promises.

How coprime the strides are shows in the least common multiple of all periods: the length after which a layer repeats.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from math import lcm
from pathlib import Path

from benchmarks.timing import alternate
from patterncc.analysis.verify import prove, prove_promises
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout, Term
from patterncc.language import load
from patterncc.passes import lower

GALLERY = Path(__file__).parent.parent / "patterns"
LOCAL = 16
PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37)  # times 8: 2e12
STRIDES = {
    "8": (8,),
    "16": (16,),
    "64": (64,),
    "7, 11, 13, 16": (7, 11, 13, 16),
    "8, 16, 32, 64": (8, 16, 32, 64),
    "8 to 64, all different": tuple(range(8, 65)),
}


def run() -> Iterator[dict[str, object]]:
    """One row a family and number of heads: the time of the proof of coverage by a layer, and its verdict."""
    for (name, strides), heads in product(STRIDES.items(), (8, 32, 128)):
        yield _row(f"strides {name}", _strided(strides, heads))
    for count in (1, 2, 3, 4, 5, len(PRIMES)):
        cover = nested_cover(PRIMES[:count])
        yield _row("exact cover", _classes(cover))
        yield _row("exact cover less one class", _classes(cover[:-1]))


def gallery() -> Iterator[dict[str, object]]:
    """One row a pattern of the gallery and property that it promises."""
    for file in sorted(GALLERY.glob("*.yaml")):
        pattern = load(file)
        classes = lower(pattern)
        for name, promise in (pattern.promises or {}).items():
            call = partial(prove_promises, classes, {name: promise})
            holds = all(verdict.holds for verdict in call())
            row: dict[str, object] = {"what": pattern.name, "property": name, "holds": holds}
            yield row | alternate({"proof": call})["proof"].json()


def nested_cover(primes: tuple[int, ...]) -> list[Layout]:
    """A window each, and residue classes that cover the integers exactly: those of 8 but one, which is split by the
    first prime, of which one is split by the next, and so on."""
    modulus, residue = 8, 7
    found = [(8, r) for r in range(7)]
    for prime in primes:
        finer = [(modulus * prime, residue + modulus * n) for n in range(prime)]
        modulus, residue = finer.pop()
        found += finer
    return [Layout((Term(d_to=LOCAL), Term(every=m, offset=r))) for m, r in [*found, (modulus, residue)]]


def _strided(strides: tuple[int, ...], heads: int) -> Classes:
    chosen = [(strides[h % len(strides)], h // len(strides)) for h in range(heads)]
    return _classes([Layout((Term(d_to=LOCAL), Term(every=s, offset=n % s))) for s, n in chosen])


def _classes(layouts: list[Layout]) -> Classes:
    distinct = tuple(dict.fromkeys(layouts))
    of = tuple(distinct.index(layout) for layout in layouts)
    return Classes("proved", 64, True, 64, len(of), len(of), distinct, (of,))


def _row(name: str, classes: Classes) -> dict[str, object]:
    (verdict,) = prove(classes, "coverage", "layer")
    times = alternate({"proof": lambda: prove(classes, "coverage", "layer")}, runs=5, limit_s=5)
    period = lcm(*(term.every for layout in classes.layouts for term in layout.terms))
    return {"what": name, "heads": classes.heads, "period": period, "holds": verdict.holds, **times["proof"].json()}
