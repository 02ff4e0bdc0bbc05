"""A template: a Triton module that runs as it stands, with marked places for a pattern's facts."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

BEGIN, END = "# --- constants:", "# --- end constants ---"
MAP_BEGIN, MAP_END = "# --- index map:", "# --- end index map ---"
FOLDER = Path(__file__).resolve().parents[2] / "codegen_templates"  # beside patterncc, in a checkout and in a wheel

BY_LAYER = "by_layer"  # the folder of the templates above several shapes
SHARED = ("api/imports.py",)  # what these have in common with the others


class TemplateError(ValueError):
    """A template breaks its discipline, or was given the wrong constants: a fault of patterncc, not of a pattern."""


@dataclass(frozen=True)
class Constant:
    """One `NAME = literal` or `NAME = tl.constexpr(literal)` of the block; positions count bytes within the block."""

    name: str
    value: object
    start: tuple[int, int]  # line, column
    stop: tuple[int, int]


@dataclass(frozen=True)
class Template:
    """The text of a template, and what is marked in it."""

    text: str

    @cached_property
    def block(self) -> tuple[int, int] | None:
        """The lines of the constants block, markers left out, counted from 0; None when there is none."""
        return _marked(self.text, BEGIN, END)

    @cached_property
    def index_map(self) -> tuple[int, int] | None:
        """The lines of the index map, markers left out, counted from 0; None when there is none."""
        return _marked(self.text, MAP_BEGIN, MAP_END)

    @cached_property
    def constants(self) -> tuple[Constant, ...]:
        if self.block is None:
            return ()
        first, last = self.block
        return tuple(_constant(node) for node in ast.parse("\n".join(self.text.split("\n")[first:last])).body)

    @property
    def values(self) -> dict[str, object]:
        """What the template itself runs with."""
        return {c.name: c.value for c in self.constants}

    @cached_property
    def kernels(self) -> tuple[str, ...]:
        """The kernels that it defines, which a profiler shows: named for the pattern when generated."""
        decorated = r"^@(?:triton|gluon)\.jit.*\n(?:@.*\n)*def (attn_\w+)\("
        return tuple(re.findall(decorated, self.text, flags=re.MULTILINE))


@lru_cache(maxsize=1)
def templates() -> dict[str, Template]:
    """Every template of a shape's package by its path in the folder, sorted. `package.py` becomes the package's
    `__init__.py`."""
    return {name: template for name, template in _templates(FOLDER).items() if not name.startswith(f"{BY_LAYER}/")}


@lru_cache(maxsize=1)
def templates_by_layer() -> dict[str, Template]:
    """Every template of the package above those of several shapes, by its path, sorted; those that it shares with a
    shape's package are among them."""
    return {**{name: templates()[name] for name in SHARED}, **_templates(FOLDER / BY_LAYER)}


def _templates(folder: Path) -> dict[str, Template]:
    paths = sorted(path for path in folder.rglob("*.py") if path != folder / "__init__.py")
    if not paths:
        raise TemplateError(f"no templates in {folder}: the installation is incomplete")
    return {path.relative_to(folder).as_posix(): Template(path.read_text(encoding="utf-8")) for path in paths}


@lru_cache(maxsize=1)
def companions() -> dict[str, bytes]:
    """What goes beside the templates as it stands: the C sources, the same for every pattern."""
    return {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in sorted(FOLDER.rglob("*.[ch]"))}


def _marked(text: str, begin: str, end: str) -> tuple[int, int] | None:
    if begin not in text and end not in text:
        return None
    lines = [line.strip() for line in text.split("\n")]
    first = [n for n, line in enumerate(lines) if line.startswith(begin)]
    last = [n for n, line in enumerate(lines) if line == end]
    if not first and not last:
        return None
    if len(first) != 1 or len(last) != 1 or first > last:
        raise TemplateError(f"expected one '{begin} …' and after it one '{end}', found {len(first)} and {len(last)}")
    return first[0] + 1, last[0]


def _constant(node: ast.stmt) -> Constant:
    target = (
        node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
    )
    value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "tl.constexpr" and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(target, ast.Name) or value is None:
        raise TemplateError(f"not a constant: {ast.unparse(node)}")
    try:
        known = ast.literal_eval(value)
    except ValueError as error:
        raise TemplateError(f"the value of {target.id} is not a literal: {ast.unparse(value)}") from error
    start, stop = (value.lineno - 1, value.col_offset), (value.end_lineno or 0, value.end_col_offset or 0)
    return Constant(target.id, known, start, (stop[0] - 1, stop[1]))
