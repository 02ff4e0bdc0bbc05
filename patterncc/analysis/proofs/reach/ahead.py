"""How far ahead token 0 sees through layers that look ahead by windows and first columns only.

Lemma (ahead). Follow back which tokens inform token 0, the last layer first. If they are the tokens 0 .. m, then
through one more layer they are those up to the largest of m, the tokens that its window adds, the end of its first
columns, and the end of the last block that its distances -a .. 0 give to the block of m; and nothing else, where its
other terms look no further ahead than a. At a length that ends before these the same holds, cut off at the length. So
the first token beyond is unconnected with token 0, and no smaller pair is.
Proof. Rows 0 .. r keep the blocks 0 .. r + a by distances -a .. 0, and any term whose distances are at least -a keeps
none beyond; windows and columns likewise give intervals that begin at 0. An interval cut off at the length has in the
next layer the same tokens below the length.
"""

from __future__ import annotations

from collections.abc import Sequence

from patterncc.analysis.geometry.box import box_of
from patterncc.analysis.geometry.union import Union
from patterncc.ir.layout import Term


def first_unseen(layers: Sequence[Union], block: int) -> int | None:
    """The first token that does not inform token 0; None where the lemma says nothing.

    >>> from patterncc.analysis.geometry.union import union
    >>> from patterncc.ir.layout import Layout
    >>> [first_unseen([union([Layout.parse(text)])] * 3, 64) for text in ("-1<=d<2 | j<1", "window 9,9 tokens", "i<1")]
    [256, 25, None]
    """
    aheads = {layer: _ahead(layer) for layer in dict.fromkeys(layers)}
    last = 0
    for layer in reversed(layers):
        ahead = aheads[layer]
        if ahead is None:
            return None
        distance, columns = ahead
        seen = [last, layer.sink - 1, columns * block - 1]
        seen += [last + layer.window[1] - 1] if layer.window else []
        seen += [(last // block + distance + 1) * block - 1] if distance is not None else []
        last = max(seen)
    return last + 1


def _ahead(layer: Union) -> tuple[int | None, int] | None:
    """(a such that the layer keeps the distances -a .. 0 and looks no further ahead, None if it has no diagonal; the
    first columns that it keeps); None if there is no such a."""
    ranges = [t for t in layer.terms if t == Term(t.d_from, t.d_to)]
    first = [t for t in layer.terms if t == Term(j_to=t.j_to)]
    start = 1  # the distances start .. 0 are kept; 1: none
    for t in sorted(ranges, key=lambda t: (t.d_to is not None, -(t.d_to or 0))):
        if t.d_from is None:
            return None
        if t.d_to is None or t.d_to >= start:
            start = min(start, t.d_from)
    others = (t for t in layer.terms if t not in first)
    if any(box_of(t).tight().d0 < start and not box_of(t).tight().empty for t in others):
        return None
    return (None if start == 1 else -start), max((t.j_to or 0 for t in first), default=0)
