"""`patterncc cache`: the packages compiled on this machine."""

from __future__ import annotations

import time
from typing import Any

from patterncc.cli import output
from patterncc.runtime.cache import Cache, Entry


def ls(json: bool) -> int:
    """What is there; the latest of a name is what `from patterncc.kernels import NAME` gives."""
    cache = Cache.of_user()
    entries = [(entry, _damage(entry)) for entry in cache.entries()]
    latest = {digest for entry, _ in entries if (digest := cache.latest_digest(entry.name))}
    if json:
        output.document(
            [described(entry) | {"latest": entry.digest in latest, "damage": why} for entry, why in entries]
        )
        return 0
    rows = [
        (
            entry.name,
            entry.digest[:12],
            f"{entry.bytes / 1024:.0f} KiB",
            "damaged" if why else time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.written)),
            "latest" if entry.digest in latest else "",
        )
        for entry, why in entries
    ]
    if rows:
        output.columns(rows, header=("name", "digest", "size", "written", ""), right=["size"])
    output.say(f"{len(rows)} package{'s' * (len(rows) != 1)} in {cache.root}")
    return 0


def clear(name: str | None, json: bool) -> int:
    """Remove packages; all notes on what was compiled go with them."""
    gone = Cache.of_user().clear(name)
    if json:
        output.document([described(entry) for entry in gone])
    else:
        print(f"removed {len(gone)} package{'s' * (len(gone) != 1)}")
    return 0


def verify(json: bool) -> int:
    """1 when a package is damaged: it will be built again when it is asked for."""
    found = [(entry, _damage(entry)) for entry in Cache.of_user().entries()]
    bad = [(entry, why) for entry, why in found if why]
    if json:
        output.document([described(entry) | {"damage": why} for entry, why in found])
        return int(bool(bad))
    for entry, why in bad:
        print(f"{entry.name} {entry.digest[:12]}: {why}")
    print(f"{len(found) - len(bad)} of {len(found)} packages are whole")
    return int(bool(bad))


def described(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "digest": entry.digest, "path": str(entry.path)}


def _damage(entry: Entry) -> str | None:
    try:
        entry.read()
    except ValueError as error:
        return str(error)
    return None
