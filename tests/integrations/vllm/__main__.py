"""The real vLLM engine on a CPU, case by case: `python -m tests.integrations.vllm [CASE …]`; `python3 run.py vllm`
builds what it needs. Exits with 1 where a case does not come out as it must. About a minute a case on two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integrations.vllm.case import MODEL, pattern_text

HERE = Path(__file__).parent
APART = 1e-3  # log-probabilities in float32 over three layers with large weights; other patterns are some units off
Result = dict[str, Any]
LONG = [480, 300, 77]
STRIDED = pattern_text("[{heads: all, local: 2, stride: 4, offset: 3}]")  # one offset: pages die for all heads


@dataclass(frozen=True)
class Case:
    about: str
    pattern: str
    prompts: list[int]
    holds: Callable[[Result, dict[str, Result]], bool] = lambda result, others: True
    options: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def plain(**options: Any) -> dict[str, Any]:
    return {"max_num_batched_tokens": 64, "enable_prefix_caching": False, **options}


CASES = {
    "mixed": Case(
        "heads that differ, layer 0 dense: batches of prefill and decode, prompts in chunks of 24",
        pattern_text("[{heads: all, local: 2, stride: 3, offset: h}]", dense_layers=0),
        [29, 7, 41, 90],
        lambda r, _: r["mixed"] > 0 and r["dense"]["same"] < r["dense"]["of"] and r["shifted"]["apart"] > 100 * APART,
        plain(max_num_batched_tokens=24),
        {"controls": True},
    ),
    "dense": Case(
        "all pages live: what the others are held against",
        pattern_text("[{heads: all, dense: true}]"),
        LONG,
        lambda r, _: r["left"] == 0,
        plain(),
    ),
    "freed": Case(
        "pages are given back while requests run",
        STRIDED,
        LONG,
        lambda r, others: r["left"] == 0 and 2 * r["peak"] < others.get("dense", {"peak": 54})["peak"],
        plain(),
    ),
    "layers": Case(
        "layer 0 dense, its pages apart from those of the others",
        pattern_text("[{heads: all, local: 2, stride: 4, offset: 3}]", dense_layers=0),
        LONG,
        lambda r, others: r["groups"] == [1, 1, 1] and r["peak"] < 2.4 * others.get("dense", {"peak": 54})["peak"],
        plain(),
    ),
    "cached": Case(
        "a prefix cache that serves later prompts though pages died, and a scheduler that computes ahead",
        STRIDED,
        LONG,
        lambda r, _: r["cached"] > 0,
        plain(enable_prefix_caching=True),
        {"shared": 290},
    ),
}


def ran(name: str, folder: Path) -> Result:
    """The result of a case, run in a process of its own."""
    case, own = CASES[name], folder / name
    own.mkdir()
    given = {"pattern": case.pattern, "prompts": case.prompts, "options": case.options, **case.more}
    (own / "case.json").write_text(json.dumps(given))
    path = os.pathsep.join(filter(None, [str(HERE / "cpu"), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": path} | case.environment
    command = [sys.executable, str(HERE / "case.py"), str(own / "case.json"), str(own / "result.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stderr[-6000:]}\nthe case {name!r} ended with exit code {done.returncode}")
    return json.loads((own / "result.json").read_text())


def main(names: list[str]) -> int:
    """Run the cases and print a line each; 1 where one fails."""
    if unknown := [name for name in names if name not in CASES]:
        sys.exit(f"there is no case {unknown[0]!r}; there are {', '.join(CASES)}")
    results: dict[str, Result] = {}
    failed = []
    print(f"a Llama with random weights, {MODEL}, pages of 16 tokens", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in names or CASES:
            start = time.time()
            result = results[name] = ran(name, Path(folder))
            own = result["pattern"]
            holds = own["same"] == own["of"] and own["apart"] < APART and CASES[name].holds(result, results)
            failed += [name] * (not holds)
            print(f"{name:8} {'ok' if holds else 'FAILS'}: {CASES[name].about} ({time.time() - start:.0f} s)")
            print(f"         tokens equal to the dense mask's {own['same']} of {own['of']}, {own['apart']:.1e} apart")
            for control in ("dense", "shifted"):
                if control in result:
                    other = result[control]
                    print(f"         control, {control}: {other['same']} of {other['of']}, {other['apart']:.1e} apart")
            beside = f", dense {results['dense']['peak']}" if "dense" in results and name != "dense" else ""
            print(f"         peak {result['peak']} pages{beside}; layers in groups {result['groups']}", flush=True)
    if failed:
        print(f"these fail: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
