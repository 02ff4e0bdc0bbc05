"""`patterncc compile`: packages from patterns, and the GPU resources of their kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from patterncc.cli import output
from patterncc.errors import PatternError, UsageError, counted, did_you_mean
from patterncc.ir.plan import FORMS
from patterncc.pipeline import DTYPES, BrokenPromise, Compiled, compile


def run(
    patterns: list[str],
    folder: Path | None,
    dtype: str,
    arch: str | None,
    binaries: bool,
    plan: str | None,
    force: bool,
    json: bool,
) -> int:
    """Compile each pattern; the mistakes of all of them are shown, and the worst decides the exit code."""
    one_of("--plan", plan, FORMS)
    one_of("--dtype", dtype, DTYPES)
    arches = targets(arch)
    if binaries and not arches:
        raise UsageError("--binaries needs --arch: the GPUs that they are for", "for example --arch sm_80,sm_90")
    documents: list[dict[str, Any]] = []
    problems: list[PatternError] = []
    for pattern in patterns:
        try:
            output.progress(f"compiling {pattern}" + f" for {', '.join(arches)}" * binaries)
            with installed("--binaries"):
                shipped = arches if binaries else ()
                done = compile(pattern, output=folder, plan=plan, force=force, binaries=shipped, dtype=dtype)
            kernels = of_binaries(done) if binaries else resources(done, arches, dtype)
        except PatternError as error:
            output.progress("")
            output.error(error)
            problems.append(error)
            continue
        output.progress("")
        documents.append(described(done, kernels))
        if not json:
            tell(done, kernels)
    if json and documents:
        output.document(documents[0] if len(patterns) == 1 else documents)
    return max((1 if isinstance(problem, BrokenPromise) else 2 for problem in problems), default=0)


def one_of(option: str, given: str | None, known: tuple[str, ...]) -> None:
    """UsageError unless the option's value is known."""
    if given is not None and given not in known:
        meant = did_you_mean(given, known, digits=1)
        raise UsageError(f"{option} is {given!r}; it takes {', '.join(known)}", meant and f"did you mean {meant}?")


def targets(arch: str | None) -> tuple[str, ...]:
    """The architectures of `--arch sm_80,sm_90`, each known to the kernels' compiler."""
    if arch is None:
        return ()
    from patterncc.codegen.targets import ARCHES, meant

    names = tuple(dict.fromkeys(name.strip() for name in arch.split(",") if name.strip()))
    for name in names or ("",):
        if name not in ARCHES:
            raise UsageError(f"--arch is {name!r}; it takes {', '.join(ARCHES)}", meant(name))
    return names


def resources(done: Compiled, arches: tuple[str, ...], dtype: str) -> list[dict[str, Any]]:
    """The resources of each kernel on each architecture, found by compiling it; no GPU is needed."""
    if not arches:
        return []
    from patterncc.codegen.resources import report

    found: list[dict[str, Any]] = []
    for arch in arches:
        output.progress(f"compiling {done.name} for {arch}")
        with installed("--arch"):
            found += [asdict(kernel) for kernel in report(done.entry.path, (arch,), dtype)]
    return found


@contextmanager
def installed(option: str) -> Iterator[None]:
    """Report a missing module as a usage error of this option."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"{option} needs {error.name}, which is not installed here") from error


def of_binaries(done: Compiled) -> list[dict[str, Any]]:
    """The resources of each kernel of which the package has a binary."""
    from patterncc.codegen.binaries import reports

    return [asdict(kernel) for kernel in reports(done.entry.path)]


def described(done: Compiled, kernels: list[dict[str, Any]]) -> dict[str, Any]:
    """What `--json` prints of a package."""
    return {
        "name": done.name,
        "digest": done.digest,
        "path": str(done.path),
        "cached": done.cached,
        "plan": done.plan,
        "kernels": kernels,
        **({"binaries": done.binaries} if done.binaries else {}),
    }


def tell(done: Compiled, kernels: list[dict[str, Any]]) -> None:
    """Print a package for people: how it came to be, where it is, and a table of its kernels."""
    how = "arithmetic" if done.plan == "closed" else "tables"
    print(f"{output.paint(done.name, output.BOLD)}: index maps as {how}, promises proved{', cached' * done.cached}")
    print(f"  {done.path}")
    if shipped := done.binaries:
        where = f"{', '.join(shipped['arches'])} ({shipped['dtype']}, triton {shipped['triton']})"
        print(f"  {counted(len(kernels), 'binary', 'binaries')} for {where}: {shipped['bytes'] / 1024:.0f} KiB")
    if kernels:
        header = list(kernels[0])
        rows = [[_cell(kernel[key]) for key in header] for kernel in kernels]
        numbers = [key for key, value in kernels[0].items() if type(value) is int]
        output.columns(rows, header=header, right=numbers, indent=2)


def _cell(value: object) -> str:
    return {True: "yes", False: "no", None: ""}.get(value, str(value)) if isinstance(value, bool | None) else str(value)
