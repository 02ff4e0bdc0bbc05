"""The text of statements in generated kernels: conditions, tuples and constants, and the comment before them."""

from __future__ import annotations

from dataclasses import replace

from patterncc.codegen import literal
from patterncc.errors import counted
from patterncc.ir.plan import Plan

MOST_SHOWN, WIDTH = 4, 120


def less(x: str, distance: str, shift: int = 0, *, sign: int = -1) -> str:
    """x - distance + shift, or x + distance.

    >>> less("i", "0"), less("i", "5"), less("i", "5", 1), less("i", "-1"), less("i", "low", 1), less("j", "5", sign=1)
    ('i', 'i - 5', 'i - 4', 'i + 1', 'i - low + 1', 'j + 5')
    """
    if not distance.lstrip("-").isdigit():
        return f"{x} {'+' if sign > 0 else '-'} {distance}" + f" + {shift}" * bool(shift)
    shift += sign * int(distance)
    return x if not shift else f"{x} {'+' if shift > 0 else '-'} {abs(shift)}"


def any_of(terms: list[str]) -> list[str]:
    """The statements that return whether any of the terms holds."""
    if not terms:
        return ["return u < 0"]
    return ["keep = " + terms[0], *("keep |= " + term for term in terms[1:]), "return keep"]


def assigned(name: str, value: object) -> list[str]:
    """The lines of a constant of the module."""
    column = len(name) + 3
    lines = f"{name} = {literal.write(value, column=column)}".split("\n")
    return ["# fmt: off", *lines, "# fmt: on"] if literal.is_filled(value, column=column) else lines


def packed(name: str, parts: list[str]) -> list[str]:
    """A tuple, on one line where it fits."""
    if len(written(parts)) < 100:
        return [f"{name} = {written(parts)}"]
    return [f"{name} = (", *(f"    {part}," for part in parts), ")"]


def unpacked(parts: list[str], name: str) -> list[str]:
    """The statement that takes it apart."""
    if len(written(parts)) < 100:
        return [f"{', '.join(parts)} = {name}" if len(parts) > 1 else f"({parts[0]},) = {name}"]
    return ["(", *(f"    {part}," for part in parts), f") = {name}"]


def written(parts: list[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def indented(lines: list[str]) -> str:
    return "\n".join("    " + line for line in lines)


def comment(plan: Plan) -> str:
    """A comment with the rules of the first classes."""
    pairs = enumerate(zip(plan.closed, plan.classes.layouts, strict=True))
    rules = [f"# class {n}: {form or replace(layout, mask=None)}" for n, (form, layout) in pairs]
    more = [f"# and {counted(len(rules) - MOST_SHOWN, 'class', 'classes')} more"] if len(rules) > MOST_SHOWN else []
    return "\n".join([rule[:WIDTH] for rule in rules[:MOST_SHOWN]] + more)
