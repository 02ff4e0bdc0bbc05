"""What a package depends on, hashed: the key under which the cache remembers which entry an input gave."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from patterncc.language.limits import LARGEST_FILE


def input_key(given: Path | str | None, plan: str | None, *more: bytes) -> str | None:
    """The hash of everything that the package depends on: the file or text, the options and the compiler itself.

    None when the text may name further files, comes from a pipe (which can be read only once), or cannot be read; then
    the pattern is compiled, and compiling reports what is wrong."""
    if isinstance(given, str):
        text, suffix = given.encode("utf-8", "surrogatepass"), b" text"
    else:
        try:
            if given is None or not given.is_file():
                return None
            with given.open("rb") as handle:
                text, suffix = handle.read(LARGEST_FILE + 1), os.fsencode(given.suffix)
        except (OSError, ValueError):
            return None
    parts = (text, suffix, str(plan).encode(), compiler(), *more)
    if b"mask" in text or b"\\" in text:  # an escape may spell it
        return None
    return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()


def binaries_key(binaries: Sequence[str], dtype: str) -> tuple[bytes, ...]:
    """What else a package with binaries depends on: what they are for, and Triton's version."""
    if not binaries:
        return ()
    from importlib.util import find_spec

    triton = find_spec("triton")
    version = Path(triton.origin).read_bytes() if triton and triton.origin else b""  # `__version__ = …`, and imports
    return (*map(str.encode, dict.fromkeys(binaries)), dtype.encode(), version)


@lru_cache(maxsize=1)
def compiler() -> bytes:
    """The compiler's sources and templates, hashed."""
    from patterncc.codegen.template import FOLDER

    package, digest = Path(__file__).parents[1], hashlib.sha256()
    parts = ("language", "ir", "passes", "analysis", "pictures", "codegen")
    for root in (package, *(package / part for part in parts), FOLDER):
        for path in sorted(root.glob("*" if root is package else "**/*")):
            if path.suffix in (".py", ".c", ".h"):
                digest.update(path.relative_to(root.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.digest()
