"""Checks of every kind of IR, run between any two passes. A breach is a fault of the compiler, never of a user."""

from __future__ import annotations

from functools import singledispatch

from patterncc.ir.classes import Classes, Layouts
from patterncc.ir.closed import MOST_RESIDUES, ClosedForm
from patterncc.ir.layout import KEY, QUERY, Layout
from patterncc.ir.plan import FORMS, Plan
from patterncc.ir.table import Table


class BrokenIR(Exception):
    """The result of a pass breaks a rule; the message prints the result."""


def check(value: object, after: str = "") -> None:
    """Raise BrokenIR, naming the pass, unless all rules of this kind of IR hold.

    >>> check(Table.of([[0], [1, 0]]), after="lower_table")
    Traceback (most recent call last):
    patterncc.ir.check.BrokenIR: after lower_table: columns of a row do not rise
    0: 0
    1: 1 0
    """
    for problem in _problems(value):
        text = str(value)
        shown = text if len(text) < 4000 else text[:4000] + " ..."
        raise BrokenIR(f"after {after or 'no pass'}: {problem}\n{shown}")


@singledispatch
def _problems(value: object) -> list[str]:
    raise TypeError(f"no rules for {type(value).__name__}")


@_problems.register
def _layouts(layouts: Layouts) -> list[str]:
    problems = [problem for layout in layouts.distinct for problem in _layout(layout)]
    if set().union(*map(set, set(layouts.of))) != set(range(len(layouts.distinct))):
        problems.append("a layout without a head, or a head without a layout")
    return problems


@_problems.register
def _layout(layout: Layout) -> list[str]:
    problems: list[str] = []
    for term in layout.terms:
        if term.anchor not in (KEY, QUERY):
            problems.append(f"unknown anchor in {term!r}")
        if not (1 <= term.width <= term.every and 0 <= term.offset < term.every):
            problems.append(f"residues of {term!r} are not reduced")
    if layout.window and min(layout.window) < 1:
        problems.append("a window does not reach its own token")
    if any(low < 0 or (high is not None and high <= low) for low, high in layout.bands):
        problems.append("a band without distances")
    if layout.chunk < 0 or layout.chunk == 1:
        problems.append("a chunk of one block, or of fewer, which is a term or nothing")
    if layout.sink < 0 or (layout.random and layout.random.blocks < 1):
        problems.append("a negative sink, or a random part that draws nothing")
    if (mask := layout.mask) and len(mask.bits) != -(-mask.rows * mask.columns // 8):
        problems.append("a mask's bits do not fit its shape")
    return problems


@_problems.register
def _classes(classes: Classes) -> list[str]:
    problems = [problem for layout in classes.layouts for problem in _layout(layout)]
    used = set().union(*map(set, classes.of)) if classes.of else set[int]()
    if used != set(range(len(classes.layouts))):
        problems.append("a class without a head, or a head without a class")
    if classes.shapes and (len(classes.shapes) != classes.layers or len(set(classes.shapes)) == 1):
        problems.append("not a shape for every layer, or the same for all")
    elif any(len(row) != classes.shape(layer).heads for layer, row in enumerate(classes.of)):
        problems.append("a layer has not as many heads as its shape says")
    if any(shape.heads % shape.kv_heads for shape in {classes.shape(layer) for layer in range(classes.layers)}):
        problems.append("query heads do not divide among the KV heads")
    if len(set(classes.layouts)) != len(classes.layouts):
        problems.append("two classes have equal layouts")
    return problems


@_problems.register
def _closed(form: ClosedForm) -> list[str]:
    problems = ["a negative sink"] if form.sink < 0 else []
    if form.chunk and any(band.every > 1 for band in form.bands):
        problems.append("a chunk beside a stride")
    ends = [x for band in form.bands for x in (band.d_from, band.d_to)]
    if None in ends[1:-1] or any(a >= b for a, b in zip(ends[::2], ends[1::2], strict=True) if None not in (a, b)):  # type: ignore[operator]
        problems.append("a band is empty, or open on the wrong side")
    elif any(a > b for a, b in zip(ends[1:-1:2], ends[2::2], strict=False)):  # type: ignore[operator]
        problems.append("bands overlap or are not sorted")
    for band in form.bands:
        if not 0 < len(band.residues) <= MOST_RESIDUES or (band.every > 1 and len(band.residues) == band.every):
            problems.append(f"residues of {band} are none, all, or too many")
        if list(band.residues) != sorted({r % band.every for r in band.residues}):
            problems.append(f"residues of {band} are not reduced and rising")
    return problems


@_problems.register
def _table(table: Table) -> list[str]:
    import numpy as np

    pointers, columns = table.pointers, table.columns
    if pointers.dtype != np.int64 or columns.dtype != np.int32:
        return ["pointers are not int64 or columns not int32"]
    if len(pointers) < 1 or pointers[0] != 0 or pointers[-1] != len(columns) or (np.diff(pointers) < 0).any():
        return ["pointers do not rise from 0 to the number of entries"]
    rises = columns[1:] > columns[:-1]
    starts = pointers[1:-1]
    rises[starts[(starts > 0) & (starts < len(columns))] - 1] = True  # from one row to the next it may fall
    if not rises.all():
        return ["columns of a row do not rise"]
    lowest = columns[pointers[:-1][np.diff(pointers) > 0]]
    return ["a negative column"] if (lowest < 0).any() else []


@_problems.register
def _plan(plan: Plan) -> list[str]:
    problems = _classes(plan.classes)
    problems += [problem for form in plan.closed if form for problem in _closed(form)]
    if plan.form not in FORMS or len(plan.closed) != len(plan.classes.layouts):
        problems.append("an unknown form, or not one closed form (or None) a class")
    if plan.form == "closed" and None in plan.closed:
        problems.append("the closed form is chosen, but a class has none")
    return problems
