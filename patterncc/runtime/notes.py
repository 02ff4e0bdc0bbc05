"""Small files of the cache that lead to an entry: `seen/<key>` and `latest/<name>`.

line 1    the entry's digest
line 2    the form of the index map that was asked for, empty for the better one
line 3…   the file that it was compiled from, empty for text; then other files that had the name before
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from patterncc.runtime.trust import check_trust

DIGEST = re.compile("[0-9a-f]{64}")
MOST_BYTES = 1 << 16
MOST_OTHERS = 8


@dataclass(frozen=True)
class Note:
    """What was compiled last under a name, or from an input."""

    digest: str
    plan: str | None = None
    source: Path | None = None
    others: tuple[Path, ...] = ()  # the last one first

    def after(self, earlier: Note | None) -> Note:
        """This note, with the sources of an earlier one among the others."""
        before = () if earlier is None else (earlier.source, *earlier.others)
        others = dict.fromkeys(path for path in before if path not in (None, self.source))
        return replace(self, others=tuple(filter(None, others))[:MOST_OTHERS])

    def write(self) -> bytes:
        paths = (os.fsencode(path or "") for path in (self.source, *self.others))
        return b"\n".join([self.digest.encode(), (self.plan or "").encode(), *paths])


def read(root: Path, place: str, name: str) -> Note | None:
    """The note in a folder of the cache; None where there is none, or it is damaged.

    Raises Untrusted where another user could have written it.
    """
    path = root / place / name
    check_trust(root, path)
    try:
        with path.open("rb") as file:
            digest, _, rest = file.read(MOST_BYTES).partition(b"\n")
        plan, source, *others = [*rest.split(b"\n"), b""][: 2 + MOST_OTHERS] if rest else (b"", b"")
        if not DIGEST.fullmatch(digest.decode("ascii")):
            return None
        paths = tuple(Path(os.fsdecode(line)) for line in others if line)
        return Note(digest.decode(), plan.decode("ascii") or None, Path(os.fsdecode(source)) if source else None, paths)
    except (OSError, ValueError):
        return None


def source_of(file: Path | None) -> Path | None:
    """The whole path of a pattern's file, where it can be kept in a note."""
    try:
        path = None if file is None else Path(os.path.abspath(file))
    except OSError:  # the working folder was removed
        return None
    return None if path is None or "\n" in os.fspath(path) else path
