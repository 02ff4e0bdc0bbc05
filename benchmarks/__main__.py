"""Speed and memory, measured side by side.

python -m benchmarks cpu              everything that needs no GPU: seven minutes on two cores
python -m benchmarks prepare [DIR]    what a machine with a GPU needs, packages and this suite, made on one without
python -m benchmarks gpu [DIR]        there: torch, triton and DIR are all that it takes
python -m benchmarks decide [FILE …]  what results of a GPU say: open constants, and goals met or missed
python -m benchmarks profile [FILE …] counters of the kernels that miss their goals, by NVIDIA's profiler
python -m benchmarks report           pages and pictures from what was measured, and the README's tables
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import counters, decide, report, targets
from benchmarks.archive import pack
from benchmarks.conduct_cpu import PARTS, measure
from benchmarks.gpu.cells import PARTS as GPU_PARTS
from benchmarks.pages import PAGES
from benchmarks.store import Store

ROOT = Path(__file__).parent.parent
PREPARED = ROOT if (ROOT / "packages").is_dir() else ROOT / "build" / "gpu"  # `prepare` puts this suite beside them


MINUTES = {"": 7.5, "fast": 1.5, "deciding": 3.0, "goals": 5.0}  # of all cells, and of each selection


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = "cpu | prepare | gpu | decide | profile | report"
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    cpu_only = commands.add_parser("cpu", help="the suite that needs no GPU")
    cpu_only.add_argument("--only", choices=PARTS, action="append", help="this alone; saved where --results says")
    cpu_only.add_argument("--minutes", type=float, default=7.75, help="what does not fit is left empty (default 7.75)")
    prepared = commands.add_parser("prepare", help="packages of the gpu suite, and the suite beside them")
    prepared.add_argument(
        "--arch", default="sm_90", help="of the GPU, for the binaries that are shipped (default sm_90)"
    )
    gpu_only = commands.add_parser("gpu", help="the suite of a machine with a GPU")
    gpu_only.add_argument("--only", choices=GPU_PARTS, action="append", help="this alone; saved where --results says")
    gpu_only.add_argument(
        "--minutes", type=float, help="what does not fit is left empty (default 7.5, of a few 1.5, 3 and 5)"
    )
    gpu_only.add_argument("--seconds", type=float, help="the same in seconds")
    few = gpu_only.add_mutually_exclusive_group()
    few.add_argument("--fast", action="store_true", help="the most telling cells; saved where --results says")
    few.add_argument("--deciding", action="store_true", help="what open constants wait for, likewise")
    few.add_argument("--goals", action="store_true", help="what goals are about, likewise")
    gpu_only.add_argument("--archive", type=Path, metavar="FILE", help="pack what --results has into one .tar.gz")
    decided = commands.add_parser("decide", help="what results say of open constants and of goals")
    profiled = commands.add_parser("profile", help="counters of the kernels that miss their goals")
    profiled.add_argument("--cell", help="of this cell, whatever its goal")
    profiled.add_argument("--direction", choices=targets.DIRECTIONS, default="forward", help="of it (default forward)")
    profiled.add_argument("--seconds", type=float, default=120, help="what does not fit is left out (default 120)")
    profiled.add_argument("--toy", action="store_true", help="in Triton's interpreter, without counters")
    for command in (decided, profiled):
        what = "results, or their folder (default: benchmarks/results)"
        command.add_argument("files", nargs="*", type=Path, metavar="FILE", help=what)
    for command in (gpu_only, profiled):
        command.add_argument("--caches", type=Path, metavar="DIR", help="where compiled kernels are kept and found")
    for command in (prepared, gpu_only):
        command.add_argument("folder", nargs="?", type=Path, default=PREPARED, metavar="DIR", help="default: build/gpu")
        command.add_argument("--toy", action="store_true", help="tiny, in Triton's interpreter: its times mean nothing")
    for command in (
        cpu_only,
        gpu_only,
        commands.add_parser("report", help="pages, pictures and tables from the results"),
    ):
        command.add_argument("--results", type=Path, metavar="DIR", help="default: benchmarks/results")
    options = parser.parse_args()
    if options.command == "cpu":
        results = options.results or (None if options.only else report.RESULTS)
        return cpu(tuple(options.only or PARTS), results, minutes=options.minutes)
    if options.command == "prepare":
        from benchmarks.prepare import prepare

        prepare(options.folder, arch=options.arch, toy=options.toy)
    elif options.command == "gpu":
        select = next((name for name in MINUTES if name and getattr(options, name)), "")
        whole = not options.toy and not options.only and not select
        results = options.results or (report.RESULTS if whole else None)
        if options.archive and results is None:
            parser.error("--archive packs what is saved: --results says where")
        minutes = options.minutes or (options.seconds or 0) / 60 or MINUTES[select]
        chosen = {"toy": options.toy, "only": options.only or (), "select": select, "caches": options.caches}
        code = gpu(options.folder, results, minutes=minutes, **chosen)
        if options.archive and results:
            print(pack(options.archive, results))
        return code
    elif options.command == "decide":
        print("\n".join(decide.lines(decide.read(options.files or [report.RESULTS]))))
    elif options.command == "profile":
        if options.cell:
            wanted = [(counters.known(options.cell, toy=options.toy).name, options.direction)]
        else:
            wanted = counters.missing_their_goals(decide.read(options.files or [report.RESULTS]))
        caches = options.caches and options.caches.resolve()
        return counters.profile(PREPARED, wanted, options.seconds, caches, toy=options.toy)
    else:
        report.render(options.results or report.RESULTS)
    return 0


def cpu(chosen: tuple[str, ...], results: Path | None, *, minutes: float) -> int:
    """Every figure is saved as it comes, beside earlier results, which it replaces when all is measured. 1 when a part
    failed or was stopped."""
    deadline = time.perf_counter() + 60 * minutes
    store = Store(results, "cpu")
    begin, rows = time.perf_counter(), dict[str, list[Mapping[str, object]]]()
    try:
        for part, row in measure(chosen, deadline):
            if part not in rows:
                print(f"\n{part}", file=sys.stderr)
            rows.setdefault(part, []).append(row)
            columns = ("cell", "note") if "note" in row else PAGES["cpu"][part]
            show(time.perf_counter() - begin, {name: row[name] for name in columns if name in row})
            store.save(rows, targets.cpu(rows))
    except KeyboardInterrupt:
        return store.stopped()
    judge([*targets.cpu(rows), *targets.gpu({})])
    return store.finish() or int("failures" in rows)


def gpu(
    packages: Path,
    results: Path | None,
    *,
    toy: bool,
    minutes: float,
    only: Iterable[str],
    select: str = "",
    caches: Path | None = None,
) -> int:
    """Every figure is saved as it comes; where only some parts are measured, the others' figures stay if they are of
    such a machine. 1 when a kernel was wrong; what was wrong has no time. Cells not come to count as empty."""
    from benchmarks.gpu import conduct
    from benchmarks.gpu.cells import completed, in_order
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
    stopped, shown = False, ""
    try:
        how = {"toy": toy, "seconds": 60 * minutes, "only": tuple(only), "select": select}
        for part, row in conduct.run(packages, **how, caches=caches and caches.resolve()):
            if part == "plan":
                print(row["plan"], file=sys.stderr, flush=True)
                continue
            if part == "machine":
                described = row
                if all(
                    earlier.get("machine", {}).get(key) == row.get(key) for key in ("accelerator", "torch", "triton")
                ):
                    kept = {name: earlier[name] for name in GPU_PARTS if name in earlier and name not in only}
                continue
            if part != shown:
                print(f"\n{part}", file=sys.stderr)
            shown = part
            rows.setdefault(part, []).append(row)
            show(time.perf_counter() - begin, row)
            if results:
                shared = with_shares(kept | in_order(rows, toy=toy))
                judged = targets.gpu({} if toy else completed(shared))
                report.save(results, "gpu", described, shared | (conduct.TOY if toy else {}), judged)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        stopped = True
    if not toy:
        print("\n".join(decide.lines(kept | rows)))
    wrong = [row for found in rows.values() for row in found if row.get("wrong")]
    for row in wrong:
        print(f"WRONG  {row['cell']}: {row['note']}", flush=True)
    if results:  # last, since pictures take seconds, and what has its time over is ended
        report.render(results)
    return 130 if stopped else int(bool(wrong))


def show(seconds: float, row: Mapping[str, object]) -> None:
    """One line, as far as it fits."""
    cells = (f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items())
    print(f"  {seconds:6.1f} s  {'  '.join(cells)}"[:220], file=sys.stderr, flush=True)


def judge(verdicts: Iterable[Mapping[str, Any]]) -> None:
    """Say which targets are met, and which were not measured, or not in all of their cells."""
    for row in verdicts:
        if row["value"] is None:
            print(f"empty    {row['target']}: not measured ({row['goal']})")
        else:
            verdict = {None: "partly ", True: "met    ", False: "NOT MET"}[row["met"]]
            print(f"{verdict}  {row['target']}: {row['value']:.4g} ({row['goal']})")


if __name__ == "__main__":
    sys.exit(main())
