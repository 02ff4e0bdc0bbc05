"""Install vLLM for a CPU into the environment that runs this: `python3 run.py vllm` does.

The wheel is that of the package index, made for GPUs: its Python code is all that runs. It is taken without its needs,
which are CUDA's libraries and a torch with them; then those that are not for GPUs follow. torch is the one of
constraints.txt.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
FOR_GPUS = {
    "torch", "torchaudio", "torchvision", "torchcodec", "pynvvideocodec", "flashinfer-python", "flashinfer-cubin",
    "tilelang", "nvidia-cudnn-frontend", "nvidia-cutlass-dsl", "nvtx", "fastsafetensors", "instanttensor",
    "quack-kernels", "tokenspeed-mla", "humming-kernels",
}  # fmt: skip


def main() -> None:
    """Install vLLM alone, then what it needs here."""
    print("installing vLLM without what it needs of GPUs; the first time this fetches some 600 MB", file=sys.stderr)
    supported = next(need for need in map(Requirement, requires("patterncc") or []) if need.name == "vllm")
    pip("--no-deps", f"vllm{supported.specifier}")
    needs = []
    for need in map(Requirement, requires("vllm") or []):
        if canonicalize_name(need.name) in FOR_GPUS or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        newest = need.name == "certifi"  # a list of certificates: the newest that the index has will do
        needs.append(need.name if newest else f"{need.name}{extras(need)}{need.specifier}")
    pip("--constraint", str(ROOT / "constraints.txt"), *needs)


def pip(*arguments: str) -> None:
    """Install; what pip says is shown only where it fails: it names all that is left out on purpose."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def extras(need: Requirement) -> str:
    return f"[{','.join(sorted(need.extras))}]" if need.extras else ""


if __name__ == "__main__":
    main()
