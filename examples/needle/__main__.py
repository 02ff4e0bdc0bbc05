"""Train the same small Llama under four patterns and see which needles it finds.

python examples/needle                    train, measure, write results/
python examples/needle convert            train dense, switch to the covered pattern, train on
python examples/needle prepare DIR        only compile the patterns into DIR, for a machine without patterncc

Options: --setting cpu|gpu|toy (the GPU's where there is one), --packages DIR, --results DIR, --jobs N, --more STEPS.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import report
import torch
from convert import convert
from rich.progress import Progress
from settings import SETTINGS, Setting
from train import DEPTHS, fresh, kv_bytes, time_steps, train, train_alone

from patterns import ABOUT, packages, seen

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python examples/needle", description="Which needles does a pattern find?")
    parser.add_argument("what", nargs="?", choices=["compare", "convert", "prepare"], default="compare")
    parser.add_argument("folder", nargs="?", type=Path, help="of `prepare`")
    gpu = torch.cuda.is_available()
    parser.add_argument("--setting", choices=list(SETTINGS), default="gpu" if gpu else "cpu")
    parser.add_argument("--packages", type=Path, help="where the compiled patterns lie, or shall lie")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--jobs", type=int, default=4 if gpu else 1, help="trainings at once")
    parser.add_argument("--more", type=int, help="steps of `convert` after the switch; default: a quarter of the first")
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.setting]
    if arguments.what == "prepare":
        if not arguments.folder:
            parser.error("prepare needs a folder")
        packages(setting, arguments.folder)
        return 0
    device = "cuda" if gpu and arguments.setting != "toy" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        compiled = packages(setting, arguments.packages or Path(folder))
        if arguments.what == "compare":
            result = compare(setting, compiled, device, arguments.jobs)
        else:
            result = convert(setting, compiled, device, arguments.more or max(2, setting.steps // 4))
    result = {"machine": machine(device), "commit": commit(), "setting": vars(setting), **result}
    arguments.results.mkdir(parents=True, exist_ok=True)
    stem = f"{'needle' if arguments.what == 'compare' else 'convert'}_{setting.name}"
    stem += f"_{arguments.more}" if arguments.more else ""
    (arguments.results / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    page = (report.compared if arguments.what == "compare" else report.converted)(result)
    (arguments.results / f"{stem}.md").write_text(page, encoding="utf-8")
    report.draw(result, arguments.results / f"{stem}.png")
    print(page)
    return 0


def compare(setting: Setting, compiled: dict, device: str, jobs: int) -> dict:
    """Train one model a pattern from the same weights on the same documents; all that was measured."""
    runs = {}
    if jobs > 1:
        folder = str(Path(compiled["dense"].__file__).parent.parent)
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            trained = {name: pool.submit(train_alone, setting, name, folder, device) for name in compiled}
            runs = {name: future.result() for name, future in trained.items()}
    else:
        with Progress(disable=not sys.stderr.isatty()) as progress:
            for name, package in compiled.items():
                task = progress.add_task(f"{name}: {ABOUT[name]}", total=setting.steps)
                model = fresh(setting, package, device)
                advance = partial(progress.advance, task)
                runs[name] = train(setting, model, name, device, setting.steps, advance)
                print(json.dumps(runs[name].plain()), file=sys.stderr)  # so that a run cut short is not lost
    seconds = time_steps(setting, {name: fresh(setting, package, device) for name, package in compiled.items()}, device)
    for name, run in runs.items():
        run.step_seconds, run.kv_bytes = seconds[name], kv_bytes(compiled[name], setting)
    return {
        "runs": {name: run.plain() for name, run in runs.items()},
        "seen": {name: seen(package, setting.length, DEPTHS) for name, package in compiled.items()},
    }


def machine(device: str) -> str:
    """What the figures were measured on, in one line."""
    if device == "cuda":
        what = torch.cuda.get_device_name()
    else:
        info = Path("/proc/cpuinfo")
        models = re.findall(r"model name\s*: (.*)", info.read_text() if info.exists() else "") or [platform.machine()]
        what = f"{models[0]}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} used"
    return f"{what}; torch {torch.__version__}"


def commit() -> str:
    """The commit of this checkout, with a + where files differ from it; "unknown" outside of one."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
