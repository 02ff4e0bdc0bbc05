"""The proofs against an SMT solver, which knows no periods: unbounded integers, and what a layout means by definition.

Where the engine says "for every length", z3 must find no pair at all; where it gives a smallest witness, z3 must accept
it and find none before it. What z3 does not decide in time is not counted, but most must be.
"""

from __future__ import annotations

import random

import pytest

from patterncc.analysis.geometry.answer import Answer
from patterncc.analysis.geometry.budget import DEFAULT
from patterncc.analysis.geometry.first_pair import first_pair, pieces_of
from patterncc.analysis.geometry.union import union
from patterncc.analysis.proofs.coverage import covered
from patterncc.analysis.proofs.kv import first_return
from patterncc.ir.layout import KEY, Layout
from tests.analysis.oracle import random_layout

z3 = pytest.importorskip("z3")
TIMEOUT = 1500  # milliseconds a question


def attends(layouts: list[Layout], block: int, causal: bool, t, u):
    """The definition, over z3 integers t, u >= 0."""
    i, j = t / block, u / block  # z3 divides integers downwards
    kept = []
    for layout in layouts:
        for term in layout.terms:
            x = j if term.anchor == KEY else i - j
            inside = [(x - term.offset) % term.every < term.width]
            for y, low, high in (
                (i - j, term.d_from, term.d_to),
                (j, term.j_from, term.j_to),
                (i, term.i_from, term.i_to),
            ):
                inside += [y >= low] if low is not None else []
                inside += [y < high] if high is not None else []
            kept.append(z3.And(*inside))
        if layout.chunk:
            kept.append(i / layout.chunk == j / layout.chunk)
        for low, high in layout.bands:
            kept.append(z3.And(t - u >= low, t - u < high))
        if layout.window:
            kept.append(z3.And(t - u < layout.window[0], t - u > -layout.window[1]))
        if layout.sink:
            kept.append(u < layout.sink)
    return z3.And(z3.Or(*kept), u <= t) if causal else z3.Or(*kept)


def decided(answer: Answer, question, t, u, what: object) -> bool:
    """Whether z3 answered; fails when it disagrees."""
    solver = z3.Solver()
    solver.set("timeout", TIMEOUT)
    solver.add(t >= 0, u >= 0, question)
    if answer.pair is None:
        found = solver.check()
        assert found != z3.sat, (what, solver.model())
        return found == z3.unsat
    solver.push()
    solver.add(t == answer.pair[0], u == answer.pair[1])
    assert solver.check() == z3.sat, what
    solver.pop()
    solver.add(z3.Or(t < answer.pair[0], z3.And(t == answer.pair[0], u < answer.pair[1])))
    found = solver.check()
    assert found != z3.sat, (what, answer, solver.model())
    return found == z3.unsat


def check_one(seed: int) -> list[bool]:
    r = random.Random(seed)
    causal, block = r.random() < 0.7, r.choice([1, 2, 4])
    layouts = [random_layout(r, causal, 0.0, block) for _ in range(r.randint(1, 3))]
    t, u = z3.Ints("t u")
    every = attends(layouts, block, causal, t, u)
    one = attends(layouts[:1], block, causal, t, u)
    others = attends(layouts[1:], block, causal, t, u)
    what = (seed, block, causal, *map(str, layouts))
    outside = z3.And(z3.Not(every), u <= t) if causal else z3.Not(every)
    beyond = first_pair(pieces_of(union(layouts[:1]), causal), union(layouts[1:]), causal, block, DEFAULT)
    earlier = z3.Int("earlier")
    dropped = z3.And(u <= earlier, earlier < t, z3.Not(attends(layouts, block, causal, earlier, u)))
    back = z3.And(every, dropped)
    return [
        decided(covered(layouts, causal, block, DEFAULT), outside, t, u, ("coverage", *what)),
        decided(beyond, z3.And(one, z3.Not(others)), t, u, ("subset", *what)),
        decided(first_return(frozenset(layouts), causal, block, DEFAULT), back, t, u, ("kv", *what)),
    ]


def test_z3_agrees():
    answers = [answer for seed in range(40) for answer in check_one(seed)]
    assert sum(answers) > 0.8 * len(answers)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(20))
def test_z3_agrees_on_thousands(shard: int):
    for seed in range(1000 + shard * 100, 1100 + shard * 100):
        check_one(seed)


def test_z3_would_notice_a_wrong_witness():
    """Negative control."""
    t, u = z3.Ints("t u")
    outside = z3.And(z3.Not(attends([Layout.parse("d<2 | j%3==1")], 4, True, t, u)), u <= t)
    assert decided(Answer((8, 0)), outside, t, u, "right")
    for wrong in (Answer(), Answer((9, 0)), Answer((8, 1)), Answer((12, 0))):
        with pytest.raises(AssertionError):
            decided(wrong, outside, t, u, "wrong")
