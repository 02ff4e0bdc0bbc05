"""The PTX of a decoding kernel whose last program merges: `merging.py FOLDER ARCH PURPOSE` prints it."""

from __future__ import annotations

import sys
from pathlib import Path

from patterncc.codegen.kernel_calls import calls
from patterncc.codegen.resources import compile_call, find_kernel, load_kernels


def main(folder: str, arch: str, purpose: str) -> None:
    package = load_kernels(Path(folder))
    [call] = [call for call in calls(package, arch, "bf16") if call.purpose == purpose]
    print(compile_call(find_kernel(package, call.kernel), call, arch).asm["ptx"])


if __name__ == "__main__":
    main(*sys.argv[1:])
