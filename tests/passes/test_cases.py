"""Each pass by example: cases/<pass>.txt holds what goes in, a blank line, what comes out, a blank line, and so on.

A line that begins with # is a title, or gives the values of other arguments: `# rows 6`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from patterncc.ir.classes import Classes, Layouts
from patterncc.ir.layout import Layout
from patterncc.language import loads
from patterncc.language.shape import Shape
from patterncc.passes.choose_plan import choose_plan
from patterncc.passes.closed_form import closed_form
from patterncc.passes.lower_table import lower_table
from patterncc.passes.merge_heads import merge_heads
from patterncc.passes.normalise import normal_layout, normalise
from patterncc.passes.of_shape import of_shape
from patterncc.passes.resolve_heads import resolve_heads

FOLDER = Path(__file__).parent / "cases"
ROOT = FOLDER.parents[2]


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    options: dict[str, int]
    before: str
    after: str

    @property
    def sizes(self) -> dict[str, int | bool]:
        given = {"causal": bool(self.options.get("causal", 1)), "block": self.options.get("block", 64)}
        return given | {key: value for key, value in self.options.items() if key in ("rows", "columns")}


def read(name: str) -> list[Case]:
    paragraphs = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").strip().split("\n\n")
    assert len(paragraphs) % 2 == 0, f"{name}.txt: a case lacks what comes out"
    cases = []
    for before, after in zip(paragraphs[::2], paragraphs[1::2], strict=True):
        lines = before.splitlines()
        notes = [line[2:] for line in lines if line.startswith("# ")]
        options = {
            words[0]: int(words[1]) for note in notes if len(words := note.split()) == 2 and words[1].isdecimal()
        }
        title = next((note for note in notes if note.split()[0] not in options), "")
        text = "\n".join(line for line in lines if not line.startswith("# "))
        cases.append(Case(name, title, options, text, after))
    return cases


def of_heads(case: Case) -> str:
    pattern = loads("pattern: 1\nname: case\n" + case.before)
    layouts = resolve_heads(pattern)
    heads = ((n, h) for n, row in enumerate(layouts.of) for h in range(len(row)))
    return "\n".join(f"{n}.{h}: {layouts.layout(n, h)}" for n, h in heads)


def of_layers(case: Case) -> str:
    """Before: one line a layer, its heads' layouts between semicolons."""
    texts = [line.split("; ") for line in case.before.splitlines()]
    numbers = iter(range(sum(map(len, texts))))  # each head has a layout of its own
    layouts = Layouts(
        tuple(Layout.parse(text) for line in texts for text in line),
        tuple(tuple(next(numbers) for _ in line) for line in texts),
    )
    shapes = tuple(Shape(len(line), 1, 64) for line in texts)
    pattern = SimpleNamespace(name="case", block=64, causal=True, softcap=None, scale=None, shapes=shapes)
    return str(merge_heads(pattern, layouts))


def of_normal(case: Case) -> str:
    """One layout a line, or whole classes."""
    if case.before.startswith("case:"):
        return str(normalise(Classes.parse(case.before)))
    layouts = map(Layout.parse, case.before.splitlines())
    return "\n".join(str(normal_layout(layout, **case.sizes)) for layout in layouts)  # type: ignore[arg-type]


def of_first_shape(case: Case) -> str:
    """The layers that have the shape of layer `layer`."""
    plan = choose_plan(Classes.parse(case.before))
    return str(of_shape(plan, plan.classes.shapes[case.options["layer"]]))


def of_layouts(function: Callable[..., object]) -> Callable[[Case], str]:
    def run(case: Case) -> str:
        return "\n".join(str(function(Layout.parse(line), case)) for line in case.before.splitlines())

    return run


RUN: dict[str, Callable[[Case], str]] = {
    "resolve_heads": of_heads,
    "merge_heads": of_layers,
    "normalise": of_normal,
    "closed_form": of_layouts(lambda layout, case: closed_form(layout, case.sizes["causal"])),
    "choose_plan": lambda case: str(choose_plan(Classes.parse(case.before))),
    "of_shape": of_first_shape,
    "lower_table": of_layouts(lambda layout, case: lower_table(layout, **case.sizes)),
}
CASES = [case for name in RUN for case in read(name)]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.name}: {case.title or n}" for n, case in enumerate(CASES)])
def test_case(case: Case) -> None:
    assert RUN[case.name](case) == case.after


def test_every_pass_has_cases() -> None:
    files = {path.stem for path in FOLDER.glob("*.txt")}
    passes = {path.stem for path in (ROOT / "patterncc/passes").glob("*.py")} - {"__init__"}
    assert files == passes == set(RUN)
    assert len(CASES) >= 40
