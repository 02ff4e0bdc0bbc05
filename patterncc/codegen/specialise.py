"""Specialise a template: set its constants, fold the branches they decide, name its kernels.

There is no template language. `diff template generated` shows the new constants, the branches gone, the
index map and the kernels' names, and nothing else: comments and layout survive.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from patterncc.codegen import literal
from patterncc.codegen.template import Template, TemplateError

FORMAT_OFF, FORMAT_ON = "# fmt: off", "# fmt: on"


def specialise(
    text: str, constants: Mapping[str, object], *, index_map: str | None = None, names: Mapping[str, str] | None = None
) -> str:
    """The template's text with these constants: its names and `constants` must be the same.

    `index_map` replaces the marked index map, `names` renames kernels, word by word.

    >>> template = '''# --- constants: set by patterncc ---
    ... CAUSAL = True
    ... BLOCK = tl.constexpr(16)  # tokens
    ... # --- end constants ---
    ... if CAUSAL:
    ...     # nothing ahead
    ...     stop = row + 1
    ... else:
    ...     stop = rows
    ... '''
    >>> print(specialise(template, {"CAUSAL": False, "BLOCK": 64}), end="")
    # --- constants: set by patterncc ---
    CAUSAL = False
    BLOCK = tl.constexpr(64)  # tokens
    # --- end constants ---
    stop = rows
    """
    if names and any(name in text for name in names):  # before anything of the pattern's own is in the text
        text = re.sub(rf"\b(?:{'|'.join(map(re.escape, names))})\b", lambda found: names[found[0]], text)
    text = set_constants(text, constants)
    if index_map is not None:
        text = set_index_map(text, index_map)
    return fold(text, {name: value for name, value in constants.items() if isinstance(value, bool)})


def set_constants(text: str, constants: Mapping[str, object]) -> str:
    """Put each value in place of the template's own; comments, annotations and order stay."""
    template = Template(text)
    wanted = {constant.name for constant in template.constants}
    if wanted != set(constants):
        raise TemplateError(
            f"the template's constants are {', '.join(sorted(wanted)) or 'none'}; "
            f"given were {', '.join(sorted(constants)) or 'none'}"
        )
    if template.block is None:
        return text
    lines = text.split("\n")
    first, last = template.block
    block = [line.encode() for line in lines[first:last]]
    for constant in reversed(template.constants):
        (top, left), (bottom, right) = constant.start, constant.stop
        before, after = block[top][:left], block[bottom][right:]
        value, place = constants[constant.name], {"column": len(before), "after": len(after)}
        written = (before + literal.text(value, **place).encode() + after).split(b"\n")
        if top and block[top - 1] == FORMAT_OFF.encode():
            top, bottom = top - 1, bottom + 1
        if literal.is_filled(value, **place):
            written = [FORMAT_OFF.encode(), *written, FORMAT_ON.encode()]
        block[top : bottom + 1] = written
    result = "\n".join([*lines[:first], *(line.decode() for line in block), *lines[last:]])
    if not literal.same(Template(result).values, {c.name: constants[c.name] for c in template.constants}):
        raise TemplateError("the constants written do not read back equal")
    return result


def set_index_map(text: str, index_map: str) -> str:
    """Put `index_map` between its markers, at their indentation."""
    place = Template(text).index_map
    if place is None:
        raise TemplateError("the template has no index map to replace")
    lines = text.split("\n")
    margin = " " * (len(lines[place[0] - 1]) - len(lines[place[0] - 1].lstrip()))
    lines[slice(*place)] = [margin + line if line else "" for line in index_map.split("\n")]
    return "\n".join(lines)


def fold(text: str, flags: Mapping[str, bool]) -> str:
    """Replace each `if FLAG:` and `if not FLAG:` by the text of the branch taken, the outermost ones first."""
    test = re.compile(rf"^\s*(?:el)?if (?:not )?(?:{'|'.join(flags)})\s*:", flags=re.MULTILINE) if flags else None
    while test and test.search(text) and (sites := list(_sites(ast.parse(text), flags))):
        lines = text.split("\n")
        for site in reversed(sites):
            _replace(lines, *site)
        text = "\n".join(lines)
    return text


def _sites(tree: ast.AST, flags: Mapping[str, bool]) -> Iterator[tuple[ast.If, bool, bool]]:
    """The outermost `if`s on a flag, top to bottom: the statement, whether its body is taken, and whether it must leave
    a `pass` behind, because nothing else is left where it stands."""
    for body in (getattr(tree, name, None) for name in ("body", "orelse", "finalbody", "handlers")):
        nodes = body if isinstance(body, list) else []
        taken = [_taken(node, flags) for node in nodes]
        vanish = all(keep is False and not node.orelse for node, keep in zip(nodes, taken, strict=True))
        for node, keep in zip(nodes, taken, strict=True):
            if keep is None:
                yield from _sites(node, flags)
            else:
                yield node, keep, vanish and node is nodes[0]


def _taken(node: ast.AST, flags: Mapping[str, bool]) -> bool | None:
    """Whether the body of this `if` is taken; None when it is no `if` on a flag."""
    if not isinstance(node, ast.If):
        return None
    test, negated = node.test, False
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, negated = test.operand, True
    return flags[test.id] ^ negated if isinstance(test, ast.Name) and test.id in flags else None


def _replace(lines: list[str], node: ast.If, taken: bool, vanish: bool) -> None:
    """Put the branch taken in the place of the statement."""
    first, margin = node.lineno - 1, node.col_offset
    if lines[first][margin:].startswith("elif") or node.body[0].lineno == node.lineno:
        raise TemplateError(f"line {node.lineno}: a flag stands alone in `if FLAG:`, on a line of its own")
    last = node.end_lineno or node.lineno  # the line after it, and after comments at the branch's own depth
    while last < len(lines) and lines[last].lstrip().startswith("#") and _margin(lines[last]) > margin:
        last += 1
    middle = next((n for n in _between(node) if lines[n][margin:].startswith(("else:", "elif "))), last)
    if taken:
        kept = _shifted(lines, node.body, first + 1, middle, margin)
    elif middle == last:
        kept = []
    elif lines[middle][margin:].startswith("elif "):
        kept = [lines[middle][:margin] + lines[middle][margin + 2 :], *lines[middle + 1 : last]]
    else:
        kept = _shifted(lines, node.orelse, middle + 1, last, margin)
    while kept and not kept[-1].strip():
        kept.pop()
    if not kept:  # what a comment above explained is gone, and so is the gap around it
        while first and lines[first - 1].lstrip().startswith("#") and _margin(lines[first - 1]) == margin:
            first -= 1
        inner = next((_margin(line) >= margin for line in lines[last:] if line.strip()), False)
        gap = not first or not lines[first - 1].strip() or lines[first - 1].endswith(":")
        while gap and inner and not lines[last].strip():
            last += 1
        while not inner and first and not lines[first - 1].strip():
            first -= 1
        kept = [" " * margin + "pass"] if vanish and margin else []
    lines[first:last] = kept


def _between(node: ast.If) -> range:
    """The lines where `else:` may stand."""
    return range(node.body[-1].end_lineno or 0, node.orelse[0].lineno if node.orelse else 0)


def _shifted(lines: list[str], body: list[ast.stmt], first: int, last: int, margin: int) -> list[str]:
    """Lines first to last, moved left to `margin`; the inside of a string stays as it is."""
    shift = body[0].col_offset - margin
    strings = (n for stmt in body for n in ast.walk(stmt) if isinstance(n, (ast.Constant, ast.JoinedStr)))
    inside = {line for n in strings for line in range(n.lineno, n.end_lineno or n.lineno)}
    return [
        line if n in inside or not line.strip() else line[shift:] for n, line in enumerate(lines[first:last], first)
    ]


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())
