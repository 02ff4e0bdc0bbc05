"""`patterncc cache`: the packages compiled on this machine, its CPU kernels, and the configurations measured on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from patterncc.cli import output
from patterncc.errors import counted
from patterncc.runtime.cache import Cache
from patterncc.runtime.entry import Entry
from patterncc.runtime.libraries import Library
from patterncc.runtime.tuned import TunedFile


def ls(json: bool) -> int:
    """Print the cache's contents. The latest entry of a name is the one that `from patterncc.kernels import NAME`
    imports."""
    cache = Cache.of_user()
    entries = cache.checked()
    tuned, built = cache.tuned(), cache.libraries()
    latest = {note.digest for entry, _ in entries if entry.name != "?" and (note := cache.latest_note(entry.name))}
    if json:
        packages = [
            described(entry) | {"latest": entry.digest in latest, "damage": why or None} for entry, why in entries
        ]
        output.document([*packages, *map(described_tuned, tuned), *map(described_library, built)])
        return 0
    rows = [
        (
            entry.name,
            entry.digest[:12],
            f"{entry.bytes / 1024:.0f} KiB",
            "damaged" if why else _date(entry.written),
            "latest" if entry.digest in latest else "",
        )
        for entry, why in entries
    ]
    if rows:
        output.columns(rows, header=("name", "digest", "size", "written", ""), right=["size"])
    if tuned:
        header = ("tuned", "direction", "numbers", "device", "rows", "keys", "warps", "stages", "gain", "written")
        output.columns(list(map(_row, tuned)), header=header, right=[*header[4:9]])
    output.note(f"{_contents(len(rows), len(tuned), len(built))} in {cache.root}")
    return 0


def clear(name: str | None, json: bool) -> int:
    """Remove packages and what was measured for them; all notes on what was compiled, and CPU kernels, go with them."""
    cache = Cache.of_user()
    built = cache.libraries() if name is None else []
    tuned, gone = cache.clear_tuned(name), cache.clear(name)
    if json:
        output.document([*map(described, gone), *({"path": str(file.path)} for file in (*tuned, *built))])
    else:
        print(f"removed {_contents(len(gone), len(tuned), len(built))}")
    return 0


def verify(json: bool) -> int:
    """1 when a package or a result is damaged: it will be built again when it is asked for, or is not used."""
    cache = Cache.of_user()
    found = cache.checked()
    tuned = [(file, _damage(file)) for file in cache.tuned()]
    built = [(library, _damage(library)) for library in cache.libraries()]
    is_bad = any(why for _, why in [*found, *tuned, *built])
    if json:
        packages = [described(entry) | {"damage": why or None} for entry, why in found]
        results = [described_tuned(file) for file, _ in tuned]
        output.document([*packages, *results, *(described_library(library) for library, _ in built)])
        return int(is_bad)
    for entry, why in found:
        if why:
            print(f"{entry.name} {entry.digest[:12]}: {why}")
    for file, why in tuned:
        if why:
            print(f"tuned {file.path.name}: {why}")
    for library, why in built:
        if why:
            print(f"CPU kernels {library.path.name}: {why}")
    print(_whole(found, "package"))
    if tuned:
        print(_whole(tuned, "tuned result"))
    if built:
        print(_whole(built, "library of CPU kernels", "libraries of CPU kernels"))
    return int(is_bad)


def described(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "digest": entry.digest, "path": str(entry.path)}


def described_tuned(file: TunedFile) -> dict[str, Any]:
    """A result of tuning; of a damaged one, where it is and why."""
    try:
        return {"path": str(file.path), **file.read(), "damage": None}
    except ValueError as error:
        return {"path": str(file.path), "damage": str(error)}


def described_library(library: Library) -> dict[str, Any]:
    """The CPU kernels' library; of a damaged one, why."""
    return {"path": str(library.path), "damage": _damage(library)}


def _contents(packages: int, tuned: int, built: int) -> str:
    """
    >>> _contents(2, 0, 0), _contents(1, 0, 1), _contents(0, 3, 1)
    ('2 packages', '1 package and the CPU kernels', '0 packages, 3 tuned results and the CPU kernels')
    """
    parts = [counted(packages, "package"), *([counted(tuned, "tuned result")] if tuned else [])]
    parts += ["the CPU kernels"] if built else []
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _whole(checked: Sequence[tuple[Any, str | None]], what: str, many: str | None = None) -> str:
    """
    >>> _whole([("a", None), ("b", "was changed")], "package"), _whole([("a", None)], "library", "libraries")
    ('1 of 2 packages is whole', '1 of 1 library is whole')
    """
    whole = sum(not why for _, why in checked)
    return f"{whole} of {counted(len(checked), what, many)} {'is' if whole == 1 else 'are'} whole"


def _row(file: TunedFile) -> tuple[str, ...]:
    try:
        content, written = file.read(), _date(file.path.stat().st_mtime)
    except (ValueError, OSError):
        return (file.path.name, *[""] * 8, "damaged")
    facts, config, measured = content["facts"], content["config"], content["measured"]
    before, sizes = measured["table_seconds"], (str(config[key]) for key in ("rows", "keys", "warps", "stages"))
    gain = f"{before / measured['seconds']:.2f}x" if before else ""
    return content["name"], facts["direction"], facts["numbers"], facts["device"], *sizes, gain, written


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _damage(entry: TunedFile | Library) -> str | None:
    try:
        entry.read()
    except ValueError as error:
        return str(error)
    return None
