"""Libraries that stand for NVIDIA's, made of the C beside this file. What is not written there answers 0."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("driver.c", "driver.py")  # of Triton's backend
QUIET = ("-w", "-O1", "-shared", "-fPIC")  # only the C of this folder: headers declare more than is used


def driver(folder: Path) -> Path:
    """libcuda.so.1 with all that Triton's sources and torch call."""
    nvidia = _package("triton") / "backends" / "nvidia"
    called = set(re.findall(r"\bcu[A-Z]\w+", "".join((nvidia / name).read_text() for name in SOURCES)))
    called |= _undefined(_package("torch") / "lib" / "libcaffe2_nvrtc.so", r"cu[A-Z]\w+")
    return _library(folder, "libcuda.so.1", ("driver.c", "state.c"), called, [nvidia / "include"])


def runtime(folder: Path, cuda: Path) -> list[Path]:
    """libcudart, and libraries of matrix products that do nothing, with all that torch calls, of the versions that it
    was built with; `cuda`: the driver that they need. None where torch was built without them."""
    include = [_package("triton") / "backends" / "nvidia" / "include"]
    made: list[Path] = []
    for stem, sources in (("cudart", ("runtime.c",)), ("cublas", ()), ("cublasLt", ())):
        for real in sorted(_package("torch").parent.glob(f"nvidia/*/lib/lib{stem}.so.*")):
            headers = [real.parents[1] / "include", *include]
            (folder / f"{stem}.versions").write_text(f"{real.name} {{ global: *; }};\n")
            more = f"-Wl,--version-script={folder / f'{stem}.versions'}", str(cuda), f"-Wl,-rpath,{cuda.parent}", "-ldl"
            made.append(_library(folder, real.name, sources, _called(real.name), headers, *more))
    return made


def _called(library: str) -> set[str]:
    """What torch's and NVIDIA's libraries take from one."""
    root = _package("torch").parent
    libraries = [*root.glob("torch/lib/*.so"), *root.glob("nvidia/*/lib/*.so*")]
    return {name for each in libraries for name in _undefined(each, rf"\w+(?=@{re.escape(library)})")}


def _library(
    folder: Path, name: str, sources: tuple[str, ...], called: set[str], include: list[Path], *more: str
) -> Path:
    text = "".join((HERE / source).read_text() for source in sources)
    rest = sorted(each for each in called if not re.search(rf"\b{each}\(", text))
    (folder / f"{name}.c").write_text("".join(f"int {each}(void) {{ return 0; }}\n" for each in rest))
    paths = [f"-I{path}" for path in (HERE, *include)]
    own = [str(HERE / source) for source in sources]
    command = ["gcc", *QUIET, f"-Wl,-soname,{name}", *paths, *own, str(folder / f"{name}.c"), "-o", str(folder / name)]
    subprocess.run([*command, *more, "-lpthread"], check=True)
    return folder / name


def _undefined(library: Path, names: str) -> set[str]:
    """What a library takes from others and is named so."""
    done = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True)
    return {found[0] for line in done.stdout.splitlines() if (found := re.match(names, line.split()[-1]))}


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent
