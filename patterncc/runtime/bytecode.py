"""The cache's own bytecode: `packages/<digest>/.bytecode/<module>.<Python>`, beside the package.

Python's own (`__pycache__`) is outside the package's hashes: a changed file would run, and a cut one would stop every
import. A file here begins with the hash of the rest, and the rest with the hash of what it was compiled from: it is
read only when both are right, else compiled and written anew.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
import tempfile
from contextlib import suppress
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

from patterncc.runtime.trust import doubt

FOLDER = ".bytecode"
HASH = 32  # bytes


def read(folder: Path, module: str, source: bytes, path: str) -> CodeType | None:
    """The stored code of a module whose source is at `path`; None when there is none or it is damaged."""
    file = folder / FOLDER / _name(module)
    if doubt(file.parent) or doubt(file):
        return None
    try:
        data = file.read_bytes()
    except OSError:
        return None
    if not _is_right(data) or data[HASH : 2 * HASH] != _facts(source, path):
        return None
    try:
        code = marshal.loads(memoryview(data)[2 * HASH :])
    except (ValueError, EOFError, TypeError):
        return None
    return code if isinstance(code, CodeType) else None


def write(folder: Path, module: str, source: bytes, path: str, code: CodeType) -> None:
    """Store the code, whole or not at all. Nothing is written where the folder takes nothing or was removed
    meanwhile."""
    if sys.dont_write_bytecode:
        return
    rest = _facts(source, path) + marshal.dumps(code)
    with suppress(OSError):
        place = folder / FOLDER
        place.mkdir(mode=0o700, exist_ok=True)  # not its parents
        handle, temporary = tempfile.mkstemp(dir=place, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(rest).digest() + rest)
            os.replace(temporary, place / _name(module))
        except OSError:
            os.unlink(temporary)


def is_whole(file: Path) -> bool:
    """Whether the file is as it was written; also when it has gone meanwhile."""
    try:
        return _is_right(file.read_bytes())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _is_right(data: bytes) -> bool:
    return len(data) > 2 * HASH and hashlib.sha256(data[HASH:]).digest() == data[:HASH]


def _facts(source: bytes, path: str) -> bytes:
    """The hash of everything that the code depends on."""
    facts = repr((MAGIC_NUMBER, sys.flags.optimize, hashlib.sha256(source).digest(), path))
    return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).digest()


def _name(module: str) -> str:
    return f"{module}.{sys.implementation.cache_tag}"
