"""A pattern file → a checked Pattern, or all of its mistakes."""

from __future__ import annotations

import os
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from patterncc.errors import Diagnostic, PatternError, Span, did_you_mean, quote, reason
from patterncc.language.document import BAD, Document, Path
from patterncc.language.limits import LARGEST_FILE, MOST_MISTAKES
from patterncc.language.model import Pattern
from patterncc.language.resolve import resolve
from patterncc.language.shape import SIZES
from patterncc.language.source import read_source
from patterncc.language.written import keys_of

# What people write who come from somewhere else.
_ELSEWHERE = {
    "window": "local", "sliding_window": "local", "window_size": "local", "local_blocks": "local", "num_heads": "heads",
    "n_heads": "heads", "num_attention_heads": "heads", "num_kv_heads": "kv_heads", "num_key_value_heads": "kv_heads",
    "n_kv_heads": "kv_heads", "num_layers": "layers", "n_layers": "layers", "num_hidden_layers": "layers",
    "block_size": "block", "head_size": "head_dim", "vert_stride": "stride", "period": "stride", "sinks": "sink",
    "description": "about", "version": "pattern", "step": "stride", "start": "from", "stop": "to", "end": "to",
    "full": "dense", "shift": "offset", "value_dim": "v_head_dim", "d_head": "head_dim", "dim_head": "head_dim",
    "num_query_heads": "heads", "q_heads": "heads", "is_causal": "causal", "sink_tokens": "sink", "global": "globals",
}  # fmt: skip


def load(path: str | os.PathLike[str]) -> Pattern:
    """The pattern in a file; raises PatternError with every mistake in it."""
    file = FilePath(path)
    name = os.fspath(path)
    try:
        with open(file, "rb") as handle:
            data = handle.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise PatternError([_unreadable(error, file, name)]) from None
    if len(data) > LARGEST_FILE:
        message = f"the file is larger than {LARGEST_FILE} bytes"
        raise PatternError([Diagnostic(message, name, help="a pattern is a page of text")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before.rsplit(b"\n", 1)[-1].decode("utf-8", "replace")) + 1
        shown = data.split(b"\n")[line - 1].rstrip(b"\r").decode("utf-8", "replace")
        message, place = f"byte {error.start} is not UTF-8", Span(line, column, column + 1)
        raise PatternError([Diagnostic(message, name, place, "save the file as UTF-8", shown)]) from None
    return loads(text, file=name, folder=file.parent)


def loads(text: str, file: str = "<text>", folder: str | os.PathLike[str] | None = None) -> Pattern:
    """The pattern in a text; `folder` is where its masks are, `file` what mistakes call it."""
    document = read_source(text, file)
    where = None if folder is None else FilePath(folder)
    pattern = None if document.data is BAD else _validated(document)
    if pattern is not None:
        pattern._source, pattern._file, pattern._folder = text, file, where  # type: ignore[reportPrivateUsage]
        keys = ((path, at) for path, at in document.keys.items() if len(path) == 1 or _states_a_size(path))
        places = {".".join(map(str, path)): document.span(at) for path, at in keys}
        pattern._places = places  # type: ignore[reportPrivateUsage]
        pattern._resolution = resolve(pattern, where, _Reporter(document))  # type: ignore[reportPrivateUsage]
    if document.diagnostics or pattern is None:
        raise PatternError(document.diagnostics)
    return pattern


def _states_a_size(path: Path) -> bool:
    return len(path) == 3 and path[0] == "layouts" and path[2] in SIZES


class _Reporter:
    """Puts reports at their place in the file, one for each path."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._reported: set[tuple[Path, str]] = set()

    def __call__(
        self,
        path: Path,
        message: str,
        help: str | None = None,
        *,
        key: bool = False,
        inside: tuple[int, int] | None = None,
        earlier: Path | None = None,
    ) -> None:
        once = (path, message if earlier else "")
        if once in self._reported:
            return
        self._reported.add(once)
        if earlier is not None:
            at = self._document.place(earlier)
            message += f"; first on line {self._document.line_at(at[0])}" if at else ""
        document = self._document
        if key and path in document.incomplete:  # what is missing may be what was refused
            return
        at = _of_key(document, path) if key else document.place(path, inside=inside)
        document.note(at, message, help)


def _of_key(document: Document, path: Path) -> tuple[int, int] | None:
    """Where a key stands; for an entry of a list or the file itself, its first key."""
    if path in document.keys:
        return document.keys[path]
    inner = [at for other, at in document.keys.items() if other[:-1] == path]
    return min(inner) if inner else document.place(path)


def _validated(document: Document) -> Pattern | None:
    """The pattern with BAD wherever a mistake was noted; None when too little of it is left."""
    if document.data.get("pattern", BAD) is not BAD and document.data["pattern"] != 1:
        given = document.data["pattern"]
        help = "1 is the only version of the language so far"
        document.note(document.place(("pattern",)), f"pattern is {_shown(given)}; it must be 1", help)
        return None
    noted: set[Path] = set()
    for _ in range(8):  # a repaired list may show mistakes that its own had hidden
        try:
            return Pattern.model_validate(document.data)
        except ValidationError as error:
            mistakes = error.errors(include_url=False, include_input=False)
            for found in sorted(mistakes, key=lambda found: found["type"] == "missing")[:MOST_MISTAKES]:
                _note_mistake(found, document, noted)
            if len(mistakes) > MOST_MISTAKES:
                return None
    return None


def _note_mistake(found: Any, document: Document, noted: set[Path]) -> None:
    """Record one of pydantic's errors in the language's own words, and put BAD in the place of its value."""
    path, missing = _walk(document.data, found["loc"])
    kind = found["type"]
    if kind == "missing" and missing is not None:
        parent = document.at(path)
        if (*path, missing) not in noted and path not in document.incomplete:
            owner = _owner(path)
            about = keys_of(owner)[missing]
            at = _of_key(document, path)
            about = about[0].lower() + about[1:] if about[1:2].islower() else about
            help = "begin with `pattern: 1`, the version of the language" if missing == "pattern" else about.rstrip(".")
            document.note(at, f"{missing} is missing", help)
        parent[missing] = BAD
        noted.add((*path, missing))
        return
    if missing is not None or not path:  # a default that could not be made: its cause has been noted
        return
    key, parent = path[-1], document.at(path[:-1])
    if kind == "extra_forbidden":
        message, help, meant = _unknown_key(str(key), path)
        document.forget_readings(path)
        document.note(document.place(path, key=True), message, help)
        document.incomplete.add(path[:-1])
        if meant is not None:
            noted.add((*path[:-1], meant))
        del parent[key]
        return
    context = found.get("ctx", {})
    if kind == "mistake":
        document.note(document.place(path, inside=context["inside"]), context["message"], context["help"])
    else:
        expected, help = context.get("expected", "something else"), context.get("help")
        name = next(str(step) for step in reversed(path) if isinstance(step, str))
        name = f"an entry of {name}" if isinstance(key, int) else name
        document.note(document.place(path), f"{name} {_is(parent[key])}; it must be {expected}", help)
    parent[key] = BAD
    noted.add(path)


def _walk(data: Any, loc: tuple[str | int, ...]) -> tuple[Path, str | None]:
    """The path in the file that pydantic's `loc` stands for, and the last step if the file does not have it."""
    path: list[str | int] = []
    for n, step in enumerate(loc):
        if (isinstance(data, dict) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        ):
            data = data[step]  # type: ignore[index]
            path.append(step)
        elif n == len(loc) - 1 and isinstance(data, dict) and isinstance(step, str) and step not in ("length", "sides"):
            return tuple(path), step
    return tuple(path), None


def _owner(path: Path) -> str | None:
    return next((step for step in reversed(path) if isinstance(step, str)), None)


def _unknown_key(key: str, path: Path) -> tuple[str, str, str | None]:
    """Message, help, and the key that was probably meant."""
    owner = _owner(path[:-1])
    known = keys_of(owner)
    familiar = _ELSEWHERE.get(key.lower(), key)
    close = did_you_mean(key, known) if owner is None or key not in keys_of(None) else None  # a key of the file's top
    meant = familiar if key.lower() in _ELSEWHERE and familiar in known else close
    if meant:
        return f"unknown key {quote(key)}", f"did you mean {meant}?", meant
    if owner is None and familiar in keys_of("shards"):
        return f"unknown key {quote(key)} at the top of the file", f"{familiar} belongs in an entry of shards", None
    place = f" in {owner}" if owner else ""
    if owner == "layouts" and familiar in keys_of("shards"):
        return f"unknown key {quote(key)}{place}", f"{familiar} belongs in an entry of its shards", None
    if owner is not None and familiar in keys_of(None):
        return f"unknown key {quote(key)}{place}", f"{familiar} belongs at the top of the file", None
    return f"unknown key {quote(key)}{place}", f"known here: {', '.join(known)}", None


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the text "{value if len(value) <= 40 else value[:37] + "..."}"'
    if value is None:
        return "empty"
    return "a list" if isinstance(value, list) else "keys and values" if isinstance(value, dict) else str(value)


def _is(value: Any) -> str:
    return "has no value" if value is None else "holds keys" if isinstance(value, dict) else f"is {_shown(value)}"


def _unreadable(error: OSError | ValueError, file: FilePath, name: str) -> Diagnostic:
    why = reason(error) if isinstance(error, OSError) else "not a file name"
    help = None
    if isinstance(error, FileNotFoundError):
        folder = file.parent
        try:
            others = [p.name for p in sorted(folder.iterdir())[:1000] if p.suffix in (".yaml", ".yml") and p.is_file()]
        except OSError:
            others = []
        close = did_you_mean(file.name, others)
        help = f"did you mean {folder / close}?" if close else None
    return Diagnostic(f"cannot be read: {why}", name, help=help)
