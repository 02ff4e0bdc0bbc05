"""Every rule of the IR has something that breaks it, and is then named together with the pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from patterncc.ir.check import BrokenIR, check
from patterncc.ir.classes import Classes, Layouts
from patterncc.ir.closed import MOST_RESIDUES, Band, ClosedForm
from patterncc.ir.layout import Layout, Mask, Random, Term
from patterncc.ir.plan import Plan
from patterncc.ir.table import Table
from patterncc.language.shape import Shape

NEAR, FAR = Layout.parse("d<2"), Layout.parse("j%4==1")
CLASSES = Classes("demo", 64, True, 64, 2, 1, (NEAR, FAR), ((0, 1), (1, 1)))
PLAN = Plan(CLASSES, "closed", (ClosedForm(0, (Band(0, 2),)), ClosedForm(0, (Band(0, None, 4, (1,)),))))
TABLE = Table.of([[0], [0, 1], [], [0, 3]])


@pytest.mark.parametrize(
    "whole", [Layouts((NEAR, FAR), ((0,), (1,))), NEAR, CLASSES, PLAN, PLAN.closed[0], TABLE, Table.of([])]
)
def test_what_is_whole(whole: object) -> None:
    check(whole)


BROKEN = {
    "offset": (Layout((Term(every=4, offset=4),)), "not reduced"),
    "width": (Layout((Term(every=4, width=5),)), "not reduced"),
    "anchor": (Layout((Term(anchor="i"),)), "unknown anchor"),
    "window": (Layout(window=(0, 1)), "own token"),
    "sink": (Layout(sink=-1), "negative sink"),
    "random": (Layout(random=Random(0, 1)), "draws nothing"),
    "mask": (Layout(mask=Mask(3, 3, b"a")), "do not fit"),
    "a layout of a layer": (Layouts((NEAR, Layout(sink=-1)), ((0, 1),)), "negative sink"),
    "a layout of nobody": (Layouts((NEAR, FAR), ((0, 0),)), "without a head"),
    "a head of nothing": (Layouts((NEAR,), ((0, 1),)), "without a layout"),
    "unused class": (replace(CLASSES, of=((0, 0),)), "without a head"),
    "missing class": (replace(CLASSES, of=((0, 2), (1, 1))), "without a class"),
    "missing head": (replace(CLASSES, of=((0, 1), (1,))), "not as many heads"),
    "kv heads": (replace(CLASSES, kv_heads=3), "do not divide"),
    "too few shapes": (replace(CLASSES, shapes=(Shape(2, 1, 64), Shape(2, 2, 64), Shape(2, 1, 64))), "not a shape"),
    "shapes all alike": (replace(CLASSES, shapes=(Shape(2, 2, 64),) * 2), "the same for all"),
    "heads of another shape": (replace(CLASSES, shapes=(Shape(2, 2, 64), Shape(4, 2, 64))), "not as many heads"),
    "kv heads of a shape": (replace(CLASSES, shapes=(Shape(2, 1, 64), Shape(2, 3, 64))), "do not divide"),
    "equal classes": (replace(CLASSES, layouts=(NEAR, NEAR)), "equal layouts"),
    "closed sink": (ClosedForm(-1, ()), "negative sink"),
    "empty band": (ClosedForm(0, (Band(3, 3),)), "empty"),
    "open band": (ClosedForm(0, (Band(0, None), Band(3, 4))), "open on the wrong side"),
    "overlap": (ClosedForm(0, (Band(0, 3), Band(2, 4))), "overlap"),
    "no residues": (ClosedForm(0, (Band(0, 3, 4, ()),)), "none, all"),
    "all residues": (ClosedForm(0, (Band(0, 3, 2, (0, 1)),)), "none, all"),
    "too many": (ClosedForm(0, (Band(0, 3, 999, tuple(range(MOST_RESIDUES + 1))),)), "too many"),
    "unsorted": (ClosedForm(0, (Band(0, 3, 9, (3, 1)),)), "not reduced and rising"),
    "table types": (Table(TABLE.pointers, TABLE.columns.astype(np.int64)), "int32"),
    "pointers fall": (Table(np.array([0, 3, 2, 5]), TABLE.columns), "do not rise"),
    "pointers end": (Table(TABLE.pointers[:-1], TABLE.columns), "number of entries"),
    "columns fall": (Table.of([[0], [1, 0]]), "do not rise"),
    "columns repeat": (Table.of([[0, 0]]), "do not rise"),
    "negative column": (Table.of([[], [-1, 0]]), "negative column"),
    "form": (replace(PLAN, form="prefix"), "unknown form"),
    "closed forms": (replace(PLAN, closed=PLAN.closed[:1]), "not one closed form"),
    "no closed form": (replace(PLAN, closed=(PLAN.closed[0], None)), "a class has none"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken(name: str) -> None:
    value, words = BROKEN[name]
    with pytest.raises(BrokenIR, match=f"^after some_pass: .*{words}"):
        check(value, after="some_pass")


def test_what_is_no_ir() -> None:
    with pytest.raises(TypeError, match="no rules for dict"):
        check({})
