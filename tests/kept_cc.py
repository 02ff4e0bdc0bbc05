"""A C compiler that works once in a run of the tests: `kept_cc.py COMPILER FOLDER ARGUMENTS…` runs the compiler, and
what it wrote for the same arguments and the same sources is copied from FOLDER from then on.

The CPU path's library takes a compiler 10 seconds, and many tests build it with caches of their own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = (".c", ".h")


def key(compiler: str, arguments: list[str]) -> str:
    """A hash of everything that the output depends on: compiler, arguments except the output's name, sources and
    headers."""
    output = arguments.index("-o") + 1
    files = [Path(argument) for argument in arguments if argument.endswith(SOURCES)]
    beside = sorted({file for folder in {file.parent for file in files} for file in folder.glob("*.h")})
    texts = [file.read_bytes() for file in (*files, *beside)]
    names = [Path(argument).name if Path(argument) in files else argument for argument in arguments]
    parts = [repr((compiler, names[:output], names[output + 1 :])).encode(), *texts]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def main(compiler: str, kept: str, *arguments: str) -> int:
    given = list(arguments)
    if "-o" not in given[:-1]:
        return subprocess.run([compiler, *given]).returncode
    output, file = given[given.index("-o") + 1], Path(kept, key(compiler, given))
    if not file.exists():
        done = subprocess.run([compiler, *given])
        if done.returncode or not Path(output).is_file():
            return done.returncode
        with tempfile.TemporaryDirectory(dir=kept) as folder:
            os.replace(shutil.copy(output, folder), file)
    shutil.copy(file, output)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
