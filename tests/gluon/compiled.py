"""What the compiler makes of a package's Hopper kernels, for sm_90 and without a GPU. Run in a process of its own:

    python -m tests.gluon.compiled FOLDER '{"IS_PACKED": true}'

prints one JSON object. `file`, `dtype` and `sums` (the type of dk and dv) stand beside the constants. Triton is the
one that is found first: its version stands in the object.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

COUNTED = {"products": r"HGMMA\.", "loads": "UTMALDG", "registers set": "USETMAXREG", "wide stores": r"STG\.E\.128"}
SPILL = re.compile(r"\b(?:STL|LDL)\b")
LAYERS = ("kernels", "kernels.hopper")


FILES = {
    "forward": "attn_fwd_hopper",
    "forward_wide": "attn_fwd_wide_hopper",
    "backward_dq": "attn_bwd_dq_hopper",
    "backward_dkdv": "attn_bwd_dkdv_hopper",
    "backward_fused": "attn_bwd_fused_hopper",
}
FLOATS, INTEGERS = (
    ("lse", "log_sum", "delta", "parts", "dq_sums"),
    ("groups", "pattern", "columns", "rows", "items", "members"),
)
INTEGERS += ("q_starts", "kv_starts", "pages", "taken", "k_run", "v_run", "k_far", "v_far", "added", "lists", "ranks")


def constants(file: str, block: int, head_dim: int, changed: dict[str, Any]) -> dict[str, Any]:
    """The kernel's constants, as the launcher gives them, but for `changed`."""
    if file == "backward_fused":
        consumer, other = {64: (208, 88), 128: (240, 24)}[head_dim]
        stages = {"ALIGN": 8, "STAGES": {64: 4, 128: 2}[head_dim]}
        return stages | {"CONSUMER_REGISTERS": consumer, "OTHER_REGISTERS": other} | changed
    page = changed.get("PAGE", 0)
    usual = {"ALIGN": 8, "IS_PACKED": bool(page)}
    if file == "backward_dkdv":
        usual |= {"HAS_NEAR": True, "HAS_STRIDES": True, "STAGES": {64: 8, 128: 4}[head_dim]}
        are_fewer = changed.get("IS_PACKED") or block < 64
        consumer, producer = {64: (208, 88), 128: (232, 40) if are_fewer else (240, 24)}[head_dim]
        return usual | {"CONSUMER_REGISTERS": consumer, "PRODUCER_REGISTERS": producer} | changed
    forward = {64: (144, 80), 128: (224, 56), 256: (216, 72)}
    consumer, producer = (216, 72) if file == "backward_dq" else forward[head_dim]
    usual |= {"CONSUMER_REGISTERS": consumer, "PRODUCER_REGISTERS": producer}
    usual |= {"CONSUMERS": 3 if file == "forward" and head_dim == 64 else 2}
    usual |= {"RUN": min(block, page & -page or 64, 64), "EVERY": 0 if page or block >= 64 else 16}
    if file == "backward_dq":
        return usual | {"STAGES": {64: 8, 128: 5}[head_dim]} | changed
    if file == "forward_wide":
        return usual | {"PAGE": 0, "K_STAGES": 2, "V_STAGES": 3} | changed
    return usual | {"PAGE": 0, "STAGES": {64: 8, 128: 6}[head_dim]} | changed


def compile_kernel(folder: Path, file: str, dtype: str, changed: dict[str, Any], sums: str = "") -> Any:
    """The kernel in this file of the package in `folder`; `sums`: the type of dk and dv where it is another."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon._runtime import GluonASTSource

    for name in ("package", *(f"package.{layer}" for layer in LAYERS)):
        module = sys.modules[name] = ModuleType(name)
        module.__path__ = [str(folder / name.replace(".", "/").removeprefix("package").strip("/"))]
    kernels = vars(importlib.import_module(f"package.kernels.hopper.{file}"))
    tiles = importlib.import_module("package.kernels.tiles")
    kernel = next(x for name, x in kernels.items() if name.startswith(FILES[file]))
    known = constants(file, tiles.BLOCK.value, max(tiles.BLOCK_D.value, 64), changed)
    line = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=1)
    run = known.get("RUN", min(tiles.BLOCK.value, 64))
    boxes = dict.fromkeys(("q", "k", "v", "dout"), (1, 1, 64, 64))
    if run < 64 or file in ("backward_dkdv", "backward_fused"):
        boxes |= dict.fromkeys(("k_run", "v_run", "q_run", "dout_run"), (1, 1, run, 64))
    if known.get("EVERY"):
        boxes |= dict.fromkeys(("k_far", "v_far"), (1, 1, 64 // run, run, 64))
    pointers = dict.fromkeys(("out", "dq"), dtype) | dict.fromkeys(("dk", "dv"), sums or dtype)
    pointers |= dict.fromkeys(FLOATS, "fp32") | dict.fromkeys(INTEGERS, "i32")
    signature: dict[str, str] = {}
    aligned: dict[tuple[int], list[list[Any]]] = {}
    for place, parameter in enumerate(kernel.params):
        name = parameter.name
        if name in known:
            signature[name] = "constexpr"
        elif name in boxes:
            layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=len(boxes[name]))
            signature[name] = f"tensordesc<{dtype}{list(boxes[name])},{layout!r}>"
        elif name in ("log_sums", "deltas"):
            signature[name] = f"tensordesc<fp32[64],{line!r}>"
        elif name in pointers:
            signature[name] = f"*{pointers[name]}"
            aligned[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if name == "scale" else parameter.annotation_type or "i32"
    source = GluonASTSource(kernel, signature, known, aligned)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})


def report(binary: Any) -> dict[str, Any]:
    """Bytes of shared memory and of spills, instructions, and what the assembler warns of."""
    import triton
    from triton.backends.nvidia.compiler import get_ptxas

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        ptx, cubin = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        ptx.write_text(binary.asm["ptx"])
        cubin.write_bytes(binary.asm["cubin"])
        command = [get_ptxas(90).path, "-v", "--gpu-name=sm_90a", ptx, "-o", Path(folder) / "again.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        command = [tools / "cuobjdump", "-sass", cubin]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        command = [tools / "cuobjdump", "--dump-resource-usage", cubin]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"\n\s+/\*[0-9a-f]{4,5}\*/\s+(.*?);", text)
    return {
        "triton": triton.__version__,
        "shared": binary.metadata.shared,
        "stack": int(re.findall(r"STACK:(\d+)", usage)[0]),
        "spills": {role: len(SPILL.findall(part)) for role, part in parts_of(text)},
        "spills in the far loop": sum(bool(SPILL.search(line)) for loop in far_loops(text) for line in loop),
        "far loops": [{"instructions": len(loop), "scores ahead": scores_ahead(loop)} for loop in far_loops(text)],
        "loads by consumers": sum(len(re.findall(r"\bLDG\b", x)) for role, x in parts_of(text) if role == "consumer"),
        "warnings": re.findall(r"\(C75\d\d\)[^\n]*", said),
        "instructions": len(lines),
        **{name: len(re.findall(expression, text)) for name, expression in COUNTED.items()},
    }


def parts_of(text: str) -> list[tuple[str, str]]:
    """The instructions of each partition, which begins where it sets its registers, and what it does."""
    parts = [part for part in re.split("USETMAXREG", text) if "HGMMA" in part or "UTMALDG" in part]
    return [("consumer" if "HGMMA" in part else "producer", part) for part in parts]


def far_loops(text: str) -> list[list[str]]:
    """The instructions of the loop over far slots of each consumer: the shortest loops with products."""
    found = re.findall(r"\n\s+/\*([0-9a-f]{4,5})\*/\s+(.*?);", text)
    lines = [(int(address, 16), line) for address, line in found]
    products = [address for address, line in lines if "HGMMA" in line]
    jumps = [(int(to[1], 16), at) for at, line in lines if (to := re.search(r"\bBRA\b.*?0x([0-9a-f]+)", line))]
    loops = {(to, at) for to, at in jumps if to < at and any(to <= product <= at for product in products)}
    least = min(at - to for to, at in loops)
    far = sorted((to, at) for to, at in loops if at - to < 1.25 * least)
    return [[line for place, line in lines if to <= place <= at] for to, at in far]


def scores_ahead(loop: list[str]) -> bool:
    """Whether a loop of dK and dV begins the next slot's scores behind its last product of gradients, which alone reads
    what it multiplies with across rows, and does not wait for all products in between."""
    last = max((n for n, line in enumerate(loop) if "tnspB" in line), default=0)
    behind = [line for line in loop[last + 1 :] if "HGMMA" in line or "DEPBAR.LE gsb0" in line]
    return next(("HGMMA" in line for line in behind if "gsb0, 0x1" not in line), False)


if __name__ == "__main__":
    path, options = Path(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    file, kind, sums = options.pop("file", "forward"), options.pop("dtype", "bf16"), options.pop("sums", "")
    print(json.dumps(report(compile_kernel(path, file, kind, options, sums))))
