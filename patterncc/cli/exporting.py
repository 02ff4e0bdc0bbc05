"""`patterncc export`: arrays and code with which another library applies a pattern at one length."""

from __future__ import annotations

from pathlib import Path

from patterncc.cli import output
from patterncc.cli.table import tokens
from patterncc.errors import UsageError, quote, reason
from patterncc.files import replace
from patterncc.formats.exporting import export
from patterncc.language import load
from patterncc.runtime.gallery import find


def run(name: str, target: str, length: str, folder: Path, json: bool) -> int:
    """Two files in `folder`: NAME_TARGET.py and NAME_TARGET.npz, which lie side by side."""
    pattern = load(find(name))
    exported = export(pattern, target, tokens(length))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {quote(str(folder), 200)} cannot be made: {reason(error)}") from None
    for file, content in exported.files.items():
        replace(folder / file, content)
    if json:
        files = [str(folder / file) for file in exported.files]
        output.document({"name": pattern.name, "to": target, "files": files, "notes": list(exported.notes)})
        return 0
    for note in exported.notes:
        output.note(f"note: {note}")
    for file in exported.files:
        print(folder / file)
    return 0
