"""Specialise a template: set its constants, put in its index map, name its kernels.

There is no template language. `diff template generated` shows the new constants, the index map and the kernels' names,
and nothing else. Branches on constants stay: Triton leaves out the one that is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

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
    ... row = token // BLOCK
    ... '''
    >>> print(specialise(template, {"CAUSAL": False, "BLOCK": 64}), end="")
    # --- constants: set by patterncc ---
    CAUSAL = False
    BLOCK = tl.constexpr(64)  # tokens
    # --- end constants ---
    row = token // BLOCK
    """
    if names and any(name in text for name in names):  # before anything of the pattern's own is in the text
        text = re.sub(rf"\b(?:{'|'.join(map(re.escape, names))})\b", lambda found: names[found[0]], text)
    text = set_constants(text, constants)
    if index_map is not None:
        text = set_index_map(text, index_map)
    return text


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
