"""The columns of a row that a random part keeps, by a rule that is the same on every machine."""

from __future__ import annotations

from functools import lru_cache

_BITS = (1 << 64) - 1


@lru_cache(maxsize=65536)
def draw(i: int, blocks: int, seed: int) -> tuple[int, ...]:
    """`blocks` of the columns 0 … i, sorted; all of them when there are no more. A row below 0 draws none.

    Floyd's sampling ("A sample of brilliance", Bentley and Floyd, CACM 1987), so that row i costs O(blocks).

    >>> draw(100, 3, 0), draw(2, 3, 0), draw(-1, 3, 0)
    ((16, 51, 100), (0, 1, 2), ())
    """
    if i + 1 <= blocks:
        return tuple(range(i + 1))
    chosen: set[int] = set()
    for k in range(blocks):
        top = i + 1 - blocks + k
        x = (mix(seed, i, k) >> 1) % (top + 1)
        chosen.add(top if x in chosen else x)
    return tuple(sorted(chosen))


def mix(seed: int, i: int, k: int) -> int:
    """64 well mixed bits: the finaliser of SplitMix64 over a sum of multiples of odd constants."""
    z = (seed * 0x9E3779B97F4A7C15 + i * 0xBF58476D1CE4E5B9 + k * 0x94D049BB133111EB) & _BITS
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _BITS
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _BITS
    return z ^ z >> 31
