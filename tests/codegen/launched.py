"""What a report says of each kernel against what launchers pass to it: `launched.py FOLDER ARCH DTYPE` prints, as JSON,
[kernel, purpose, constants that no launcher passes so]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from patterncc.codegen.binaries import import_launchers
from patterncc.codegen.kernel_calls import calls
from patterncc.codegen.kinds import kinds
from patterncc.codegen.resources import load_kernels
from patterncc.codegen.usual_calls import usual_calls


def main(folder: str, arch: str, dtype: str) -> None:
    package = import_launchers(Path(folder), arch)
    found = kinds(package, usual_calls(package, arch, dtype), arch)
    lines = []
    for call in calls(load_kernels(Path(folder)), arch, dtype):
        wrong = []
        for kind in found:
            if package.launch.binaries.stem(kind.kernel) == call.kernel:
                names = kind.kernel.arg_names
                known = {names[place]: value for (place,), value in kind.constants.items()}
                wanted = {name: value for name, value in call.constants.items() if name in names}
                options = kind.options.num_warps != call.warps
                if "STAGES" in names:  # the others have no loop to overlap
                    options |= kind.options.num_stages != call.stages
                wrong.append(sorted(n for n, value in wanted.items() if known.get(n) != value) + ["options"] * options)
        lines.append([call.kernel, call.purpose, min(wrong, key=len, default=["it is not launched"])])
    print(json.dumps(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
