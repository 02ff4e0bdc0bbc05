"""The CPU path's kernels in C: built once for a machine by the C compiler that it has, and kept in the user's cache.

The compiler is `$CC`, cc, gcc or clang, or the one in the package ziglang, which pip can install: the first whose
library passes a trial, a small attention once more in fp64. Where there is none, torch's operators do the work.
`PATTERNCC_CPU=torch` asks for these, `PATTERNCC_CPU=compiled` for an error instead. Where `$CC` is of no use, another
compiler is taken with a warning, and none under `PATTERNCC_CPU=compiled`.

A library is named for what it is made of and for its own content: `cpu/<facts>-<content>.so`.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import pkgutil
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import torch

from ..launch.folder import cache_folder, locked

SOURCES = ("problem.h", "tiles.h", "forward.c", "backward.c", "trial.c")
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-sanitize=all", "-w", "-fPIC", "-shared")
EXTENSIONS = {  # of x86, by what torch finds here
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mf16c"),
}
WRONG, SLACK = 3, 4  # a trial's ends
TRIAL = f"""import ctypes, sys
numbers = ctypes.CDLL(sys.argv[1]).attn_trial()
sys.exit({WRONG} if numbers else {SLACK} if float("5e-324") * 1.0 == 0.0 else 0)"""
MOST_SECONDS = 120  # for a compiler that needs one
BUILDING, SOON_S = ".building-", 60  # of a folder in which a library is built; between making and locking it
CHOICES = ("", "torch", "compiled")

_lock = threading.Lock()
# The library, and why there is none, or none by the compiler that was asked for; empty until it is needed.
_found: list[tuple[ctypes.CDLL | None, str]] = []


def asked() -> str:
    """The value of PATTERNCC_CPU, "" if unset; ValueError for an unknown value."""
    if (choice := os.environ.get("PATTERNCC_CPU", "")) not in CHOICES:
        raise ValueError(f"PATTERNCC_CPU is {choice!r}; expected torch or compiled, or nothing")
    return choice


def library() -> ctypes.CDLL | None:
    """The library of attn_forward, attn_backward and attn_types; None where torch's operators do the work.

    Raises RuntimeError where PATTERNCC_CPU asks for the library and it cannot be had, saying why, and ValueError where
    it asks for something else.
    """
    choice = asked()
    if choice == "torch":
        return None
    with _lock:
        if not _found:
            _found.append(_library())
    found, why = _found[0]
    if why and choice == "compiled":  # there is none, or not by the compiler that was asked for
        raise RuntimeError(f"PATTERNCC_CPU=compiled: no compiled kernels, {why}")
    return found


def _library() -> tuple[ctypes.CDLL | None, str]:
    """The library, from the cache or built now, and "" or why it is not from the compiler that was asked for; or None,
    and why there is none."""
    if os.name != "posix":
        return None, f"which are not for {sys.platform}"
    try:
        sources = {name: pkgutil.get_data(__package__, f"c/{name}") or b"" for name in SOURCES}
    except OSError as error:  # the package was removed, or another took its place, since it was imported
        return None, f"whose sources are gone: {error.filename}"
    flags = (*FLAGS, *EXTENSIONS.get(torch.backends.cpu.get_cpu_capability(), ()))
    name = _digest(repr((sources, flags, platform.machine(), sys.platform, *_chosen())).encode())
    folder: Path | None = None
    with suppress(OSError):  # without a home, or in a folder that was removed
        folder = cache_folder() / "cpu"
    for kept in sorted(folder.glob(f"{name}-*.so")) if folder and _is_ours(folder.parent, folder) else ():
        with suppress(OSError):
            if _is_ours(kept) and kept.stem == f"{name}-{_digest(kept.read_bytes())}":
                return ctypes.CDLL(str(kept)), ""
    why = ""
    for place in dict.fromkeys((folder, None)):  # None: nowhere, for this process only
        try:
            if place is not None:
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                place.mkdir(mode=0o700, exist_ok=True)
            if place is None or _is_ours(place.parent, place):
                found, why = _built(sources, flags, name, place)
                if found is not None:
                    return found, why
        except OSError as error:
            why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None, why


def _built(
    sources: dict[str, bytes], flags: tuple[str, ...], name: str, folder: Path | None
) -> tuple[ctypes.CDLL | None, str]:
    """Compile and load the library, and store it in `folder` if there is one: whole or not at all, also when several
    processes do so at once."""
    chosen, of_chosen = _chosen()
    why = of_chosen or "there is no C compiler: install one, or the package ziglang"
    _sweep(folder or Path(tempfile.gettempdir()))
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=BUILDING, ignore_cleanup_errors=True) as room,
        ExitStack() as held,
    ):
        with suppress(OSError):  # a system without such locks builds all the same
            held.enter_context(locked(Path(room), wait=False))
        for file, text in sources.items():
            (Path(room) / file).write_bytes(text)
        for attempt, compiler in enumerate(_compilers()):
            built = Path(room) / f"{attempt}.so"  # of another name: the last one may still be loaded
            command = [*compiler, *flags, *(file for file in sources if file.endswith(".c")), "-o", built.name, "-lm"]
            try:
                subprocess.run(
                    command, cwd=room, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=MOST_SECONDS
                )
                _try(built)
                found = ctypes.CDLL(str(built))
                _ = found.attn_forward, found.attn_backward, found.attn_types
            except subprocess.CalledProcessError as error:
                why = f"{shlex.join(compiler)} fails: {error.stderr.decode(errors='replace').strip()[:500]}"
            except subprocess.TimeoutExpired:
                why = f"{shlex.join(compiler)} takes more than {MOST_SECONDS} seconds"
            except (OSError, AttributeError, ArithmeticError) as error:
                why = f"{shlex.join(compiler)} gives no library of use: {error}"
            else:
                if of_chosen:
                    instead = f"{of_chosen}; {shlex.join(compiler)} compiles the CPU's kernels instead"
                    warnings.warn(
                        f"{instead}. PATTERNCC_CPU=compiled makes this an error", RuntimeWarning, stacklevel=2
                    )
                elif folder is not None:
                    built.chmod(0o700)
                    built.rename(folder / f"{name}-{_digest(built.read_bytes())}.so")
                return found, of_chosen
            if compiler == chosen:
                of_chosen = f"CC={os.environ['CC']}: {why}"
    return None, why


def _try(built: Path) -> None:
    """Raise ArithmeticError unless the library passes its trial. The trial runs in a process of its own, so that a
    crash, or a library that sets subnormal numbers to 0 when it is loaded, does not affect this one."""
    done = subprocess.run(
        [sys.executable or "python3", "-I", "-c", TRIAL, built],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=MOST_SECONDS,
    )
    if done.returncode in (WRONG, SLACK):
        raise ArithmeticError("its numbers are wrong" if done.returncode == WRONG else "it makes small numbers 0")
    if done.returncode:
        printed = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ends with {done.returncode}"]
        raise ArithmeticError(printed[-1])


def _compilers() -> Iterator[list[str]]:
    """The commands to try, in order."""
    chosen, of_chosen = _chosen()
    if chosen:
        yield chosen
    if (chosen or of_chosen) and asked() == "compiled":
        return
    for command in (["cc"], ["gcc"], ["clang"]):
        if shutil.which(command[0]):
            yield command
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "cc"]


def _chosen() -> tuple[list[str], str]:
    """(command, reason): `$CC` as a command with the program's full path, since it runs in another folder; or the
    reason why it is not usable."""
    text = os.environ.get("CC", "").strip()
    try:
        command = shlex.split(text)
    except ValueError as error:
        return [], f"CC is {text!r}: {error}"
    if not command:
        return [], ""
    program = shutil.which(command[0])
    return (
        ([], f"CC names {command[0]!r}, which is no program")
        if program is None
        else ([os.path.abspath(program), *command[1:]], "")
    )


def _is_ours(*places: Path) -> bool:
    """Whether only this user and root can write these files and their folders, from the cache's root down: their code
    is run."""
    try:
        owners = {place.lstat().st_uid for place in places} | {place.stat().st_uid for place in places}
        return owners <= {os.geteuid(), 0} and not any(place.stat().st_mode & 0o022 for place in places)
    except OSError:
        return False


def _sweep(folder: Path) -> None:
    """Remove what killed builds left: folders with nothing but sources and libraries in them that nobody holds."""
    known = {*SOURCES, *(f"{attempt}.so" for attempt in range(8))}
    for left in folder.glob(f"{BUILDING}????????"):
        with suppress(OSError):
            if left.is_symlink() or time.time() - left.stat().st_mtime < SOON_S or set(os.listdir(left)) - known:
                continue
            with locked(left, wait=False):
                shutil.rmtree(left)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
