"""Speed and memory, measured side by side.

python -m benchmarks cpu              everything that needs no GPU: seven minutes on two cores
python -m benchmarks prepare [DIR]    what a machine with a GPU needs, packages and this suite, made on one without
python -m benchmarks gpu [DIR]        there: torch, triton and DIR are all that it takes
python -m benchmarks report           pages and pictures from what was measured, and the README's tables
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks import machine, report, targets
from benchmarks.gpu.cells import PARTS as GPU_PARTS

PARTS = ("startup", "lowering", "proofs", "attention", "decoding", "loops")
ROOT = Path(__file__).parent.parent
PREPARED = ROOT if (ROOT / "packages").is_dir() else ROOT / "build" / "gpu"  # `prepare` puts this suite beside them


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="cpu | prepare | gpu | report")
    cpu_only = commands.add_parser("cpu", help="the suite that needs no GPU")
    cpu_only.add_argument("--only", choices=PARTS, action="append", help="leave the other parts out, and write nothing")
    prepared = commands.add_parser("prepare", help="packages of the gpu suite, and the suite beside them")
    prepared.add_argument(
        "--arch", default="sm_90", help="of the GPU, for the binaries that are shipped (default sm_90)"
    )
    gpu_only = commands.add_parser("gpu", help="the suite of a machine with a GPU")
    gpu_only.add_argument("--only", choices=GPU_PARTS, action="append", help="this alone; saved where --results says")
    gpu_only.add_argument("--minutes", type=float, default=7.5, help="what does not fit is left empty (default 7.5)")
    for command in (prepared, gpu_only):
        command.add_argument("folder", nargs="?", type=Path, default=PREPARED, metavar="DIR", help="default: build/gpu")
        command.add_argument("--toy", action="store_true", help="tiny, in Triton's interpreter: its times mean nothing")
    for command in (gpu_only, commands.add_parser("report", help="pages, pictures and tables from the results")):
        command.add_argument("--results", type=Path, metavar="DIR", help="default: benchmarks/results")
    options = parser.parse_args()
    if options.command == "cpu":
        cpu(tuple(options.only or PARTS), write=not options.only)
    elif options.command == "prepare":
        from benchmarks.prepare import prepare

        prepare(options.folder, arch=options.arch, toy=options.toy)
    elif options.command == "gpu":
        whole = not options.toy and not options.only
        results = options.results or (report.RESULTS if whole else None)
        return gpu(options.folder, results, toy=options.toy, minutes=options.minutes, only=options.only or ())
    else:
        report.render(options.results or report.RESULTS)
    return 0


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

    measures: tuple[Callable[[], Iterator[Mapping[str, object]]], ...]
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
                    report.save(report.RESULTS, "cpu", machine.describe(), results, targets.cpu(results))
    judge(targets.cpu(results))
    if write:
        report.render(report.RESULTS)


def gpu(packages: Path, results: Path | None, *, toy: bool, minutes: float, only: Iterable[str]) -> int:
    """Every figure is saved as it comes; where only some parts are measured, the others' figures stay if they are of
    such a machine. 1 when a kernel was wrong; what was wrong has no time."""
    from benchmarks.gpu import conduct
    from benchmarks.gpu.shares import with_shares

    if not any(packages.glob("packages/bench_*")):
        sys.exit(f"no packages in {packages}: `python -m benchmarks prepare {packages}` writes them, without a GPU")
    if not toy and (missing := conduct.missing()):
        sys.exit(f"{missing}: `python -m benchmarks gpu --toy` tries the suite without one")
    earlier = (report.saved("gpu", results) if results and only and not toy else None) or {}
    rows: dict[str, list[Mapping[str, object]]] = {}
    kept: dict[str, list[Mapping[str, object]]] = {}
    described: Mapping[str, object] = {}
    begin = time.perf_counter()
    for part, row in conduct.run(packages, toy=toy, seconds=60 * minutes, only=tuple(only)):
        if part == "machine":
            described = row
            if all(earlier.get("machine", {}).get(key) == row.get(key) for key in ("accelerator", "torch", "triton")):
                kept = {name: earlier[name] for name in GPU_PARTS if name in earlier and name not in only}
            continue
        if part not in rows:
            print(f"\n{part}", file=sys.stderr)
        rows.setdefault(part, []).append(row)
        show(time.perf_counter() - begin, row)
        if results:
            shared = with_shares(kept | rows)
            judged = targets.gpu({} if toy else shared)
            report.save(results, "gpu", described, shared | (conduct.TOY if toy else {}), judged)
    judge([] if toy else targets.gpu(with_shares(kept | rows)))
    if results:
        report.render(results)
    wrong = [row for found in rows.values() for row in found if row.get("wrong")]
    for row in wrong:
        print(f"WRONG  {row['cell']}: {row['note']}")
    return 1 if wrong else 0


def watched(name: str, rows: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """All rows, each shown as it comes, with the time it took."""
    print(f"\n{name}", file=sys.stderr)
    found, begin = [], time.perf_counter()
    for row in rows:
        show(time.perf_counter() - begin, row)
        found.append(row)
    return found


def show(seconds: float, row: Mapping[str, object]) -> None:
    """One line, as far as it fits."""
    cells = (f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items())
    print(f"  {seconds:6.1f} s  {'  '.join(cells)}"[:220], file=sys.stderr, flush=True)


def judge(verdicts: Iterable[Mapping[str, object]]) -> None:
    """Say which targets are met; of what was not measured, nothing."""
    for row in verdicts:
        if row["value"] is not None:
            print(f"{'met    ' if row['met'] else 'NOT MET'}  {row['target']}: {row['value']:.4g} ({row['goal']})")


if __name__ == "__main__":
    sys.exit(main())
