"""For the reference: examples (`>>>`) and columns of text in docstrings become blocks of code in Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Fences the doctests and the columns of every docstring; Markdown would make running text of them."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """The text with a fence around each paragraph that begins with `>>>`, or whose lines all have a gap within.

    >>> fenced("Parts:\\n\\na   one\\nb   two")
    'Parts:\\n\\n```text\\na   one\\nb   two\\n```'
    """
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.splitlines()
        if paragraph.startswith(">>>"):
            paragraph = f"```pycon\n{paragraph}\n```"
        elif len(lines) > 1 and all(re.match(r"\S.*? {2,}\S", line) for line in lines):
            paragraph = f"```text\n{paragraph}\n```"
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)
