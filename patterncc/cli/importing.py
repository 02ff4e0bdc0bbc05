"""`patterncc import`: what another library says, as a pattern file."""

from __future__ import annotations

from pathlib import Path

from patterncc.cli import output
from patterncc.cli.table import tokens
from patterncc.errors import UsageError
from patterncc.formats.importing import import_pattern, write
from patterncc.language.limits import MOST_HEADS


def run(
    source: str,
    file: Path | None,
    name: str | None,
    heads: int | None,
    length: str | None,
    level: str,
    block: int | None,
    json: bool,
) -> int:
    """YAML on stdout or in `file`, its masks beside it; notes on stderr, or all of it as one JSON document."""
    if heads is not None and not 1 <= heads <= MOST_HEADS:
        raise UsageError(f"--heads is {heads}; it takes 1 to {MOST_HEADS}")
    if block is not None and block not in (16, 32, 64, 128):
        raise UsageError(f"--block is {block}; a pattern's block is 16, 32, 64 or 128")
    imported = import_pattern(source, name, heads, tokens(length) if length else None, level, block)
    if imported.masks and file is None:
        raise UsageError(
            f"this pattern needs {', '.join(imported.masks)} beside it", "say where to write it: -o FILE.yaml"
        )
    if file is not None:
        write(imported, file)
    if json:
        output.document(
            {
                "name": imported.name,
                "source": imported.source,
                "exact": imported.exact,
                "notes": list(imported.notes),
                "yaml": imported.yaml,
                "masks": sorted(imported.masks),
                "path": str(file) if file else None,
            }
        )
        return 0
    for note in imported.notes:
        output.note(f"note: {note}")
    if file is None:
        print(imported.yaml, end="")
    else:
        print(f"{imported.name}: {file}")
    return 0
