"""The shortest way to write a union of residues: few wheels, and the same ones however the union was written.

A wheel (every, offset, width, anchor) holds the numbers x with (x - offset) mod every < width; its anchor says what x
is. A set of residues is an integer here: its bit r says whether the set holds the numbers that are r modulo its period.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import lcm
from operator import or_

from patterncc.ir.layout import KEY

Wheel = tuple[int, int, int, str]  # every, offset, width, anchor

FULL: Wheel = (1, 0, 1, KEY)
LONGEST = 1024  # the common period up to which wheels are joined


def joined_wheels(wheels: Sequence[Wheel], beside: Sequence[Wheel] = ()) -> list[Wheel] | None:
    """The union of wheels of one anchor, by wheels of short periods of which none is idle. What those `beside` hold may
    be held too, and need not. The result depends on what both hold, and not on how that is written. None where the
    common period is longer than `LONGEST`.

    >>> joined_wheels([(2, 0, 1, "j"), (4, 0, 2, "j")]), joined_wheels([(2, 0, 1, "j"), (4, 1, 3, "j")])
    ([(4, 0, 3, 'j')], [(1, 0, 1, 'j')])
    >>> joined_wheels([(6, 0, 1, "j"), (6, 2, 3, "j")]), joined_wheels([(2, 0, 1, "j"), (16, 3, 1, "j")])
    ([(2, 0, 1, 'j'), (3, 0, 1, 'j')], [(2, 0, 1, 'j'), (16, 3, 1, 'j')])
    >>> joined_wheels([(5, 3, 2, "j")], beside=[(5, 4, 2, "j")])
    [(5, 3, 1, 'j')]
    """
    period, anchor = 1, wheels[0][3]
    for every, *_ in (*wheels, *beside):
        period = lcm(period, every)
        if period > LONGEST:
            return None
    held = other = _set_of(beside, period)
    kept = _set_of(wheels, period) | other
    chosen: list[Wheel] = []
    runs: list[Wheel] = []  # of the last period alone
    for every in (every for every in range(1, period + 1) if period % every == 0):
        always = _always(kept, period, every)
        runs = [(every, offset, width, anchor) for offset, width in _runs(always, every)]
        for wheel in runs:
            if (of_wheel := _set_of([wheel], period)) & ~held:
                chosen.append(wheel)
                held |= of_wheel
        if _repeated(always, every, period) == kept:  # the shortest period of what is kept
            break
    needed = _without_idle(chosen, period, other)
    runs = _without_idle(runs, period, other)
    shortest = runs if len(runs) < len(needed) else needed
    return [FULL] if shortest and shortest[0][0] == 1 else shortest


def _without_idle(wheels: list[Wheel], period: int, other: int) -> list[Wheel]:
    """The wheels without the ends that others hold, from the shortest period on; those without all of theirs are left
    out."""
    needed: list[Wheel] = []
    later = list(accumulate((_set_of([wheel], period) for wheel in reversed(wheels)), or_, initial=0))[-2::-1]
    earlier = other
    for (every, offset, width, anchor), rest in zip(wheels, later, strict=True):
        others = earlier | rest
        while width and not _set_of([(every, offset, 1, anchor)], period) & ~others:
            offset, width = (offset + 1) % every, width - 1
        while width and not _set_of([(every, (offset + width - 1) % every, 1, anchor)], period) & ~others:
            width -= 1
        if width:
            needed.append((every, offset, width, anchor))
            earlier |= _set_of(needed[-1:], period)
    return needed


def _always(kept: int, period: int, every: int) -> int:
    """The residues modulo `every`, a divisor of the period, of which all numbers are kept."""
    found = (1 << every) - 1
    while period > 0 and found:
        found &= kept
        kept >>= every
        period -= every
    return found


def _runs(kept: int, every: int) -> Iterator[tuple[int, int]]:
    """(offset, width) of the runs of a set of residues, going around at `every`."""
    if kept == (1 << every) - 1:
        yield 0, every
        return
    first = _bits(kept & ~(kept << 1 | kept >> every - 1))
    last = _bits(kept & ~(kept >> 1 | (kept & 1) << every - 1))
    if first and last[0] < first[0]:
        last = [*last[1:], last[0]]
    yield from ((low, (high - low) % every + 1) for low, high in zip(first, last, strict=True))


def _bits(number: int) -> list[int]:
    """The places of the bits that are set, from the lowest."""
    places = []
    while number:
        lowest = number & -number
        places.append(lowest.bit_length() - 1)
        number ^= lowest
    return places


def _set_of(wheels: Sequence[Wheel], period: int) -> int:
    """The union of wheels whose numbers `every` divide the period."""
    kept = 0
    for every, offset, width, _ in wheels:
        run = (1 << min(width, every)) - 1
        turned = run << offset % every
        turned = (turned | turned >> every) & (1 << every) - 1
        kept |= _repeated(turned, every, period)
    return kept


def _repeated(kept: int, every: int, period: int) -> int:
    """Residues modulo `every` as residues modulo the period, a multiple of it."""
    return kept * (((1 << period) - 1) // ((1 << every) - 1))
