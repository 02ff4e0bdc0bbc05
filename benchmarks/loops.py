"""The forward kernel's inner loops, read from machine code: instructions per kept key, for a GPU that is not here.

A pattern's far loop is held against that of a dense pattern compiled from the same template with the same tiles. What
it costs to walk a pattern is the difference.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HEAD_DIM = 128
PATTERNS = {"dense": None, "block 128": 128, "block 64": 64, "block 32": 32, "block 16": 16}


def run(folder: Path, arch: str = "sm_90") -> Iterator[dict[str, object]]:
    """One row a pattern: what its loops hold, and the far loop's ratio to the dense pattern's."""
    import patterncc
    from benchmarks.patterns import strided, written

    dense = None
    for name, block in PATTERNS.items():
        text = strided(
            name=f"loop_{block or 'dense'}", heads=16, stride=16, local=1024 // (block or 64), head_dim=HEAD_DIM,
            block=block or 64,
        )  # fmt: skip
        if block is None:
            text = re.sub(r"local: .*offset: h", "dense: true", text)
        compiled = patterncc.compile(written(text, folder), output=folder)
        command = [sys.executable, "-m", "benchmarks.loops", str(compiled.path), arch]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        dense = dense or row["instructions_per_key"]
        yield {"what": name, "arch": arch, **row, "to_dense": round(row["instructions_per_key"] / dense, 3)}


def loops(sass: str) -> list[list[str]]:
    """The operations of each loop that multiplies matrices, the shortest first: the far loop has no masks, so it is
    that; the edge loop is the other.

    >>> loops(".L_1:\\n /*00*/ HGMMA.64 R0 ;\\n /*10*/ @P0 BRA `(.L_1) ;\\n.L_2:\\n /*20*/ EXIT ;")
    [['HGMMA.64', 'BRA']]
    """
    labels: dict[str, int] = {}
    operations: list[str] = []
    found: list[list[str]] = []
    for line in sass.splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = len(operations)
        elif operation := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)", line):
            operations.append(operation[1])
            target = re.search(r"`\((\.L_\w+)\)", operation[2])
            if operation[1].startswith("BRA") and target and target[1] in labels:
                found.append(operations[labels[target[1]] :])
    products = [loop for loop in found if any("MMA" in operation for operation in loop)]
    if not products:
        raise ValueError("no loop multiplies matrices")
    return sorted(products, key=len)


def _measure(folder: str, arch: str) -> dict[str, object]:
    """Compile the forward kernel for `arch` and read its loops. Runs in a process of its own."""
    import triton

    from patterncc.codegen.kernel_calls import calls
    from patterncc.codegen.resources import compile_call, cubin_usage, find_kernel, load_kernels

    package = load_kernels(Path(folder))
    call = next(call for call in calls(package, arch, "bf16") if (call.kernel, call.purpose) == ("attn_fwd", ""))
    binary = compile_call(find_kernel(package, call.kernel), call, arch)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        sass = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout
    far, edge = loops(sass)
    registers, spills = cubin_usage(binary.asm["cubin"])
    return {
        "tile": f"{call.constants['BLOCK_Q'] * call.constants['BLOCK_H']} x {call.constants['BLOCK_N']}",
        "warps": call.warps,
        "instructions": len(far),
        "instructions_per_key": round(len(far) / call.constants["BLOCK_N"], 3),
        "edge_per_key": round(len(edge) / call.constants["BLOCK_N"], 3),
        "matrix": sum("MMA" in operation for operation in far),
        "async_copies": sum(operation.startswith(("LDGSTS", "UTMALDG")) for operation in far),
        "registers": registers,
        "spills": spills,
        "shared_bytes": binary.metadata.shared,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
