"""YAML text → a `Document`: plain data and a place for every key and value.

Reads the events of PyYAML's pure parser (its C parser dies of deep nesting, and disagrees with the pure one),
without recursion, in bounded time and memory. What YAML allows and a pattern file does not (anchors, aliases,
merge keys, tags, several documents, duplicate keys, scalars with two readings) is collected, not raised:
`BAD` stands where such a value stood, and everything else of the file can still be checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from patterncc.errors import quote
from patterncc.language.document import BAD, Document, Path
from patterncc.language.limits import DEEPEST, LARGEST_FILE, LONGEST_SCALAR, MOST_NODES
from patterncc.language.scalars import AmbiguousScalar, decimal, plain_scalar
from patterncc.language.syntax import explain

FRACTIONS = "softcap", "scale"  # keys of the file whose numbers need not be whole
UNNAMED = "remove it, and write each value out where it is used"


@dataclass
class _Open:
    """A list or mapping that has begun and not ended. `path` is None inside what is thrown away."""

    data: dict[str, Any] | list[Any]
    path: Path | None
    start: int
    key: str | None = None  # the key whose value comes next
    awaits_value: bool = False
    is_key: bool = False


class _Stop(Exception):
    """Reading cannot go on; the mistake has been noted."""


def read_source(text: str, file: str) -> Document:
    """The document in `text`; every mistake of reading it is in its `diagnostics`.

    >>> document = read_source("heads: 8\\nshards: [{heads: all}]", "a.yaml")
    >>> document.data, document.text[slice(*document.values["shards", 0, "heads"])]
    ({'heads': 8, 'shards': [{'heads': 'all'}]}, 'all')
    """
    text = text.removeprefix("\ufeff")
    document = Document(text, file)
    if len(text) > LARGEST_FILE or len(text.encode("utf-8", "surrogatepass")) > LARGEST_FILE:
        document.note(None, f"the file is larger than {LARGEST_FILE} bytes", "a pattern is a page of text")
        return document
    loader: Any = None
    try:
        loader = yaml.SafeLoader(text)
        _read_events(loader, document)
        return document
    except yaml.reader.ReaderError as error:
        at = int(error.position)
        code = ord(text[at]) if at < len(text) else 0
        document.note((at, at + 1), f"the character U+{code:04X} may not stand in a YAML file", "remove it")
    except yaml.MarkedYAMLError as error:
        _note_syntax(error, document)
    except (ValueError, OverflowError):  # an escape such as "\UFFFFFFFF", a version such as %YAML 1.111…
        at = loader.get_mark().index if loader else 0
        document.note((at, at + 1), "this escape sequence or version is out of range")
    except _Stop:
        pass
    document.data = BAD  # part of a file says nothing about the whole
    return document


def _read_events(loader: Any, document: Document) -> None:
    """Fill the document with what the events say: its data, the place of each key and value, and mistakes. Raises _Stop
    where no more of the text is worth reading."""
    stack: list[_Open] = []
    nodes = documents = 0
    while loader.check_event():
        event = loader.get_event()
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                document.note((start, end), "a second document begins here", "a file holds one pattern; remove `---`")
                raise _Stop
        if isinstance(event, yaml.CollectionEndEvent):
            _close(stack, document, start, end)
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        nodes += 1
        if nodes > MOST_NODES:
            document.note((start, end), f"the file holds more than {MOST_NODES} keys and values")
            raise _Stop
        collection = isinstance(event, yaml.CollectionStartEvent)
        if collection and len(stack) == DEEPEST:
            document.note((start, start + 1), f"more than {DEEPEST} lists and mappings within each other")
            raise _Stop
        parent = stack[-1] if stack else None
        key = parent is not None and isinstance(parent.data, dict) and not parent.awaits_value
        fraction = parent is not None and parent.path == () and parent.key in FRACTIONS
        value = _value(event, document, start, end, key, fraction)
        if parent and key:
            if collection:
                document.note((start, start + 1), "a key must be a word", "text with braces or brackets needs quotes")
                stack.append(_Open(value, None, start, is_key=True))
            else:
                _take_key(parent, event, value, document, start, end)
            continue
        refused = collection and event.tag is not None
        path = _put(parent, BAD if refused else value, document)
        if path is not None:
            document.values[path] = (start, end)
        if collection:
            stack.append(_Open(value, None if refused else path, start))
    if document.data is None or documents == 0:
        document.data = BAD
        document.note(None, "the file is empty", "begin with `pattern: 1`, then name, heads, shards")
    elif isinstance(document.data, (str, int, list)):
        document.note(document.values[()], "a pattern file is a mapping of keys to values", "begin with `pattern: 1`")
        document.data = BAD


def _close(stack: list[_Open], document: Document, start: int, end: int) -> None:
    """Take the innermost list or mapping off the stack: it ends here, and its place in the text is known."""
    closed = stack.pop()
    # one without brackets has no end of its own: what follows it begins here, after spaces and lines
    stop = closed.start + len(document.text[closed.start : start].rstrip()) if start == end else end
    if closed.path is not None:
        document.values[closed.path] = (closed.start, max(stop, closed.start + 1))
    if closed.is_key:
        stack[-1].key, stack[-1].awaits_value = None, True


def _value(event: Any, document: Document, start: int, end: int, key: bool, fraction: bool = False) -> Any:
    """The event's value; refusals are noted and give BAD. A key is its text, whatever it would be as a value. Numbers
    are whole, but where there may be a `fraction`."""
    if isinstance(event, yaml.AliasEvent):
        message = f"aliases such as {quote('*' + event.anchor)} are not allowed"
        if event.anchor not in document.aliases:  # once is enough
            document.aliases.add(event.anchor)
            document.note((start, end), message, "write the value out; text that begins with * needs quotes")
        return BAD
    if event.anchor is not None:
        name = "&" + event.anchor
        document.note((start, start + len(name)), f"anchors such as {quote(name)} are not allowed", UNNAMED)
    if event.tag is not None:
        found = re.compile(r"(?:&\S+\s+)?(![^\s,\[\]{}]*)").match(document.text, start)
        at, tag = (found.span(1), found[1]) if found else ((start, end), event.tag)
        document.note(at, f"tags such as {quote(tag)} are not allowed", "remove it")
    if isinstance(event, yaml.MappingStartEvent):
        return {}
    if isinstance(event, yaml.SequenceStartEvent):
        return []
    text: str = event.value
    if len(text) > LONGEST_SCALAR:
        document.note((start, end), f"{len(text)} characters in one value; the most is {LONGEST_SCALAR}")
        return BAD
    if any("\ud800" <= c <= "\udfff" for c in text):
        document.note((start, end), "half of a surrogate pair is not a character", "write the character itself")
        return BAD
    if event.tag is not None:
        return BAD
    if event.style or key:  # quoted, literal or folded: text
        return text
    try:
        number = decimal(text) if fraction else None
        return plain_scalar(text) if number is None else number
    except AmbiguousScalar as error:
        document.note_reading((start, end), error.message, error.help)
        return BAD


def _take_key(parent: _Open, event: Any, value: Any, document: Document, start: int, end: int) -> None:
    """Remember the key whose value comes next; a key that is refused has its value thrown away."""
    parent.awaits_value, parent.key = True, None
    if value is BAD:
        return
    name: str = value
    if name == "<<" and not event.style:
        document.note((start, end), "merge keys are not allowed", "write the keys out")
        document.incomplete.add(parent.path or ())
    elif parent.path is not None and (*parent.path, name) in document.keys:
        first = document.keys[(*parent.path, name)][0]
        message = f"key {quote(name)} is given twice; first on line {document.line_at(first)}"
        document.note((start, end), message, "remove one of the two")
    else:
        parent.key = name
        if parent.path is not None:
            document.keys[(*parent.path, name)] = (start, end)


def _put(parent: _Open | None, value: Any, document: Document) -> Path | None:
    """Put a value where it belongs; its path, or None when it is thrown away."""
    if parent is None:
        document.data = value
        return ()
    if isinstance(parent.data, list):
        parent.data.append(value)
        return None if parent.path is None else (*parent.path, len(parent.data) - 1)
    key, parent.key, parent.awaits_value = parent.key, None, False
    if key is None:
        return None
    parent.data[key] = value
    return None if parent.path is None else (*parent.path, key)


def _note_syntax(error: yaml.MarkedYAMLError, document: Document) -> None:
    problem = f"{error.problem or error.context}"
    message, help, at_context = explain(problem)
    mark = (error.context_mark if at_context else error.problem_mark) or error.problem_mark or error.context_mark
    document.note((mark.index, mark.index + 1) if mark else None, message, help)
