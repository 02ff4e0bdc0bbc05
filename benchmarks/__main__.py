"""`python -m benchmarks cpu | gpu | prepare | report`. The gpu suite needs only torch, triton and prepared packages."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks import machine, report, targets

PARTS = ("startup", "lowering", "proofs", "attention", "decoding", "loops")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", choices=("cpu", "gpu", "prepare", "report"))
    parser.add_argument("--only", choices=PARTS, action="append", help="leave the other parts out, and write nothing")
    parser.add_argument("--packages", type=Path, default=Path("build/gpu"), help="prepared packages of the gpu suite")
    parser.add_argument("--toy", action="store_true", help="gpu: a few tiny shapes, in Triton's interpreter")
    options = parser.parse_args()
    if options.command == "cpu":
        cpu(tuple(options.only or PARTS), write=not options.only)
    elif options.command == "prepare":
        from benchmarks.gpu_packages import prepare

        prepare(options.packages)
    elif options.command == "gpu":
        gpu(options.packages, toy=options.toy)
    else:
        for suite in ("cpu", "gpu"):
            report.plot(suite)
        report.fill_readme()


def cpu(chosen: tuple[str, ...], *, write: bool) -> None:
    """Everything that needs no GPU. What is measured is saved after each part: a kill loses one part at most."""
    from benchmarks import lowering, proofs, startup

    def attention() -> Iterator[Mapping[str, object]]:
        from benchmarks import attention_cpu

        yield from attention_cpu.run(folder)
        yield from attention_cpu.run(folder, backward=True)

    def decoding() -> Iterator[Mapping[str, object]]:
        from benchmarks import decoding_cpu

        yield from decoding_cpu.run(folder)

    def inner_loops() -> Iterator[Mapping[str, object]]:
        from benchmarks import loops

        yield from loops.run(folder)

    measures = (startup.run, lowering.run, proofs.run, attention, decoding, inner_loops)
    results: dict[str, list[Mapping[str, object]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, measure in zip(PARTS, measures, strict=True):
            if part in chosen:
                results[part] = watched(part, measure())
                if part == "lowering":
                    results["growth"] = watched("growth of lowering", lowering.growth(results[part]))
                if write:
                    report.save("cpu", machine.describe(), results, targets.cpu(results))
    finish("cpu", results, targets.cpu(results), write)


def gpu(packages: Path, *, toy: bool) -> None:
    """Ceilings first, then attention and decoding. About seven minutes on one GPU."""
    from benchmarks import gpu as suite

    results = {name: watched(name, rows) for name, rows in suite.parts(packages, toy=toy)}
    finish("gpu", results, targets.gpu(results), write=not toy)


def watched(name: str, rows: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """All rows, each shown as it comes, with the time it took."""
    print(f"\n{name}", file=sys.stderr)
    found, begin = [], time.perf_counter()
    for row in rows:
        cells = (f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items())
        print(f"  {time.perf_counter() - begin:6.1f} s  {'  '.join(cells)}"[:220], file=sys.stderr, flush=True)
        found.append(row)
    return found


def finish(suite: str, results: Mapping[str, list], verdicts: list[dict[str, object]], write: bool) -> None:
    """Say which targets are met; save and draw unless only a part was measured."""
    for row in verdicts:
        if row["value"] is not None:
            print(f"{'met    ' if row['met'] else 'NOT MET'}  {row['target']}: {row['value']:.4g} ({row['goal']})")
    if write:
        print(report.save(suite, machine.describe(), results, verdicts))
        report.plot(suite)
        report.fill_readme()


if __name__ == "__main__":
    main()
