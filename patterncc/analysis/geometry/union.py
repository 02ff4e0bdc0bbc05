"""What several heads keep together, and what they leave, as token pairs.

A block pair that no term keeps is still kept in part by token windows and sinks. Windows (-after < t - u < before) all
hold t = u, so a union of windows is the window of the largest `before` and the largest `after`; a union of sinks is the
largest. So what a union of layouts leaves of such a block pair is u >= sink and (t - u >= before or t - u <= -after).

Lemma (smallest tokens). Let S be the token pairs with a <= t - u < b and c <= u < e. The block pairs that hold a pair
of S are exactly those with bounds on i - j, j and i (`touched`); the smallest pair of S in block pair (i, j) is t =
max(i B, a + u0), u = max(u0, t - b + 1) with u0 = max(j B, c); and a smaller (i, j) has the smaller (t, u).
Proof. Within the block pair, u ranges over [u0, min(j B + B, e)) and t over [i B, i B + B), so t - u takes every
value from i B - min(j B + B, e) + 1 to i B + B - 1 - u0: it meets [a, b) iff the first is below b and the last at
least a, which are the four linear bounds. The smallest t is at least i B and a + u0 (u is smallest for it), and
attained. Rows are ordered as their tokens; within a row u0, hence t, grows with j.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from patterncc.analysis.geometry.box import INFINITY
from patterncc.ir.layout import Layout, Mask, Random, Term
from patterncc.ir.tokens import chunk_terms, joined

ENDLESS = 1 << 40  # tokens of a window without an end: more than any sequence has


@dataclass(frozen=True)
class TokenRange:
    """The token pairs with lag_from <= t - u < lag_to and key_from <= u < key_to."""

    lag_from: float = -INFINITY
    lag_to: float = INFINITY
    key_from: int = 0
    key_to: float = INFINITY

    def meet(self, other: TokenRange) -> TokenRange:
        return TokenRange(
            max(self.lag_from, other.lag_from),
            min(self.lag_to, other.lag_to),
            max(self.key_from, other.key_from),
            min(self.key_to, other.key_to),
        )

    @property
    def empty(self) -> bool:
        return self.lag_from >= self.lag_to or self.key_from >= self.key_to

    def touched(self, block: int) -> Term:
        """The block pairs that hold a pair of the span.

        >>> TokenRange(lag_from=100, key_from=70).touched(32)
        Term(d_from=3, j_from=2, i_from=5)
        """

        def start(x: float) -> int | None:  # the smallest block n with n B + B - 1 >= x
            return None if abs(x) == INFINITY else -((block - 1 - int(x)) // block)

        def stop(x: float) -> int | None:  # one past the largest block n with n B <= x
            return None if abs(x) == INFINITY else int(x) // block + 1

        return Term(
            d_from=start(self.lag_from),
            d_to=stop(self.lag_to + block - 2),
            j_from=self.key_from // block or None,
            j_to=stop(self.key_to - 1),
            i_from=start(self.lag_from + self.key_from) if self.key_from % block else None,
            i_to=stop(self.lag_to + self.key_to - 2),
        )

    def smallest(self, i: int, j: int, block: int) -> tuple[int, int]:
        """The smallest token pair of the span in a block pair that it touches.

        >>> TokenRange(lag_from=100, key_from=70).smallest(5, 2, 32)
        (170, 70)
        """
        u = max(j * block, self.key_from)
        t = i * block if self.lag_from == -INFINITY else max(i * block, int(self.lag_from) + u)
        return t, u if self.lag_to == INFINITY else max(u, t - int(self.lag_to) + 1)


@dataclass(frozen=True)
class Union:
    """The parts of several layouts together; chunks are among the terms. `window` is None when none has one."""

    terms: frozenset[Term]
    window: tuple[int, int] | None
    sink: int
    randoms: frozenset[Random]
    masks: frozenset[Mask]
    bands: tuple[tuple[int, int | None], ...] = ()  # of causal layers, in tokens: disjoint, rising, beyond the window

    @property
    def opaque(self) -> bool:
        """Whether there are random or mask parts, which only evaluation decides."""
        return bool(self.randoms or self.masks)

    def spans(self, causal: bool) -> tuple[TokenRange, ...]:
        """The token pairs that the windows and sinks keep."""
        universe = everything(causal)
        kept = [TokenRange(1 - self.window[1], self.window[0])] if self.window else []
        kept += [TokenRange(low, INFINITY if high is None else high) for low, high in self.bands]
        kept += [TokenRange(key_to=self.sink)] if self.sink else []
        return tuple(s for s in (universe.meet(span) for span in kept) if not s.empty)

    def rest(self, causal: bool) -> tuple[TokenRange, ...]:
        """The token pairs that windows and sinks leave, where no term keeps the blocks.

        >>> union([Layout.parse("window 100,20 tokens | sink 4 tokens")]).rest(causal=False)
        (TokenRange(lag_from=100, lag_to=inf, key_from=4, key_to=inf), TokenRange(lag_from=-inf, lag_to=-19, key_from=4,
        key_to=inf))
        """
        universe = everything(causal).meet(TokenRange(key_from=self.sink))
        if self.bands:
            ends = [self.window[0] if self.window else 0, *(x for band in self.bands for x in band)]
            known: list[float] = [end for end in ends if end is not None]  # the last band may be without an end
            known += [] if ends[-1] is None else [INFINITY]
            left = (universe.meet(TokenRange(low, high)) for low, high in zip(known[::2], known[1::2], strict=True))
            return tuple(span for span in left if not span.empty)
        if not self.window:
            return (universe,)
        before, after = self.window
        pieces = (universe.meet(TokenRange(lag_from=before)), universe.meet(TokenRange(lag_to=1 - after)))
        return tuple(span for span in pieces if not span.empty)


def everything(causal: bool) -> TokenRange:
    """All token pairs, of the triangle or of the square."""
    return TokenRange(lag_from=0) if causal else TokenRange()


def union(layouts: Iterable[Layout]) -> Union:
    """What the layouts keep together."""
    all_of = list(dict.fromkeys(layouts))
    windows = [layout.window for layout in all_of if layout.window]
    bands: tuple[tuple[int, int | None], ...] = ()
    if any(layout.bands for layout in all_of):
        spans = [*(band for layout in all_of for band in layout.bands), *((0, before) for before, _ in windows)]
        bands = joined(spans)
        if bands[0][0] == 0:
            windows, bands = [(bands[0][1] or ENDLESS, 1)], bands[1:]
    return Union(
        frozenset(term for layout in all_of for term in (*layout.terms, *chunk_terms(layout.chunk))),
        (max(before for before, _ in windows), max(after for _, after in windows)) if windows else None,
        max((layout.sink for layout in all_of), default=0),
        frozenset(layout.random for layout in all_of if layout.random),
        frozenset(layout.mask for layout in all_of if layout.mask),
        bands,
    )


def meet(term: Term, other: Term) -> Term:
    """A term's pairs within the bounds of another, which has no residue.

    >>> meet(Term(d_to=16, every=4, offset=1), Term(d_from=2, j_from=3))
    Term(d_from=2, d_to=16, j_from=3, every=4, offset=1)
    """

    def low(a: int | None, b: int | None) -> int | None:
        return b if a is None else a if b is None else max(a, b)

    def high(a: int | None, b: int | None) -> int | None:
        return b if a is None else a if b is None else min(a, b)

    return Term(
        low(term.d_from, other.d_from),
        high(term.d_to, other.d_to),
        low(term.j_from, other.j_from),
        high(term.j_to, other.j_to),
        low(term.i_from, other.i_from),
        high(term.i_to, other.i_to),
        term.every,
        term.offset,
        term.width,
        term.anchor,
    )
