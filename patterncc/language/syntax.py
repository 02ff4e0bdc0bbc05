"""What PyYAML says of a text that is not YAML, in words for a person who writes a pattern."""

from __future__ import annotations

import re

# What PyYAML says → what a person needs. The first pattern that is found decides; `{}` is its first group.
_QUOTE, _TAB = "text that holds `: ` needs quotes; a key needs a line", "replace it with spaces"
_ESCAPE = r"write \\ for a backslash, or use single quotes"
_SYNTAX = (
    (r"found character '\\t'", "a tab; YAML indents and separates with spaces", _TAB),
    (r"found character (?:'|\")(.)", "no value begins with `{}`", "put the value in quotes"),
    ("mapping values are not allowed", "a `:` where none is expected", _QUOTE),
    ("could not find expected ':'", "this line is no `key: value`", "check for a missing `:` or a quote left open"),
    ("sequence entries are not allowed", "a list entry where none is expected", "begin the list on a line of its own"),
    ("expected <block end>, but found '-'", "a `-` among keys", "indent it below the key whose list it belongs to"),
    ("expected <block end>", "this does not fit what stands before it", "check the indentation"),
    (r"expected ',' or '\]'", "this list is not closed", "a `,` or `]` is missing"),
    (r"expected ',' or '\}'", "these keys and values are not closed", "a `,` or `}}` is missing"),
    ("unexpected end of stream", "a quote is opened and never closed", "close it"),
    ("unexpected document separator", "a quote is opened and never closed", "close it"),
    ("unknown escape character", "this escape sequence is not known", _ESCAPE),
    ("expected escape sequence", "this escape sequence is not complete", _ESCAPE),
    ("undefined tag handle", "tags are not allowed", "text that begins with ! needs quotes"),
)


def explain(problem: str) -> tuple[str, str, bool]:
    """Message, help, and whether the mark belongs where the unfinished thing began.

    >>> explain("found character '\\\\t' that cannot start any token")
    ('a tab; YAML indents and separates with spaces', 'replace it with spaces', False)
    """
    for pattern, message, help in _SYNTAX:
        if found := re.search(pattern, problem):
            group = found[1] if found.groups() else ""
            return message.format(group), help.format(group), "closed" in message or "no `key" in message
    return f"not YAML: {problem}", "see the examples in `patterns/`", False
