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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integrations.vllm.case import MODEL, pattern_text

HERE = Path(__file__).parent
APART = 1e-3  # log-probabilities in float32 over three layers with large weights; other patterns are some units off
Result = dict[str, Any]
LONG = [480, 300, 77]
DENSE = {"peak": 56}  # what the case of this name needs
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
    is_wrong: bool = False  # a control: the tokens must be others
    refused: str = ""  # the words with which the engine must refuse to start
    asked: bool = False  # run only where it is named


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
        lambda r, others: r["left"] == 0 and 2 * r["peak"] < others.get("dense", DENSE)["peak"],
        plain(),
    ),
    "layers": Case(
        "layer 0 dense, its pages apart from those of the others",
        pattern_text("[{heads: all, local: 2, stride: 4, offset: 3}]", dense_layers=0),
        LONG,
        lambda r, others: r["groups"] == [1, 1, 1] and r["peak"] < 2.4 * others.get("dense", DENSE)["peak"],
        plain(),
    ),
    "cached": Case(
        "a prefix cache that serves later prompts though pages died",
        STRIDED,
        LONG,
        lambda r, _: r["cached"] > 0,
        plain(enable_prefix_caching=True),
        {"shared": 290},
    ),
    "small": Case(
        "three requests in 29 pages, of which one alone would take 36; the prefix cache loses pages and still serves",
        STRIDED,
        [560, 300, 77],
        lambda r, _: r["requests"] >= 2 and r["cached"] > 0 and r["left"] == 0,
        plain(enable_prefix_caching=True, num_gpu_blocks_override=30, max_model_len=640),
        {"shared": 290},
    ),
    "early": Case(
        "a control: pages given back 40 tokens before they are dead",
        STRIDED,
        [560, 300, 77],
        options=plain(num_gpu_blocks_override=30, max_model_len=640),
        more={"early": 40},
        is_wrong=True,
    ),
    "together": Case(
        "vLLM told to keep one block table for all layers: a page dies where it does for each of them",
        pattern_text(
            "[{heads: all, local: 2, stride: 4, offset: 3}]", layouts="[{layers: 1, shards: [{heads: all, local: 9}]}]"
        ),
        LONG,
        lambda r, others: r["groups"] == [3] and 2 * r["peak"] < 1.5 * others.get("dense", DENSE)["peak"],
        plain(disable_hybrid_kv_cache_manager=True),
    ),
    "ranks": Case(
        "two tensor-parallel ranks, three heads each: the second one's first head is 3",
        pattern_text("[{heads: all, local: 2, stride: 3, offset: h}]"),
        [29, 7, 41, 90],
        lambda r, _: r["shifted"]["apart"] > 100 * APART,
        plain(max_num_batched_tokens=24, tensor_parallel_size=2),
        {"controls": True},
        {"VLLM_CPU_OMP_THREADS_BIND": "nobind"},
    ),
    "process": Case(
        "the engine in a process of its own, where vLLM finds patterncc by its entry point",
        pattern_text("[{heads: all, local: 2, stride: 3, offset: h}]", dense_layers=0),
        [29, 7],
        options=plain(),
        more={"watched": False},
        environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
    ),
    "refused": Case(
        "a pattern for another model",
        pattern_text("[{heads: all, local: 2}]", heads=8),
        [29],
        options=plain(),
        refused="the model has 6 heads, the pattern tiny has 8 (line 4: heads: 8)",
    ),
    "named": Case(
        "a model whose config.json says its pattern, and nobody else does",
        STRIDED,
        [300, 77],
        lambda r, _: r["left"] == 0 and r["peak"] < 20,
        plain(additional_config={}),
        {"attached": True},
    ),
    "unread": Case(
        "a pattern, and vLLM left to choose another backend, which would be dense",
        STRIDED,
        [29],
        options=plain(attention_config={}),
        refused="does not read: the model would be dense",
    ),
    "interpret": Case(
        "the Triton kernels, in the interpreter",
        pattern_text("[{heads: all, local: 2, stride: 3, offset: h}]", dense_layers=0),
        [29, 7, 41],
        lambda r, _: r["mixed"] > 0 and r["shifted"]["apart"] > 100 * APART,
        plain(max_num_batched_tokens=24),
        {"controls": True},
        {"TRITON_INTERPRET": "1"},
        asked=True,
    ),
}


def ran(name: str, folder: Path) -> Result | str:
    """The result of a case, run in a process of its own; what the process said where it ended with a mistake."""
    case, own = CASES[name], folder / name
    own.mkdir()
    given = {"pattern": case.pattern, "prompts": case.prompts, "options": case.options, **case.more}
    (own / "case.json").write_text(json.dumps(given))
    path = os.pathsep.join(filter(None, [str(HERE / "cpu"), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": path} | case.environment
    command = [sys.executable, str(HERE / "case.py"), str(own / "case.json"), str(own / "result.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return done.stdout + done.stderr
    return json.loads((own / "result.json").read_text())


def told(name: str, result: Result, dense: Result | None) -> Iterator[str]:
    """What a case showed, line by line."""
    own = result["pattern"]
    yield f"tokens equal to the dense mask's {own['same']} of {own['of']}, {own['apart']:.1e} apart"
    for control in ("dense", "shifted"):
        if control in result:
            other = result[control]
            yield f"control, {control}: {other['same']} of {other['of']}, off by {other['apart']:.1f}"
    if "peak" in result:
        beside = f", dense {pages(dense)}" if dense and name != "dense" else ""
        yield f"at most {result['requests']} requests and {pages(result)} pages{beside}"
        yield f"layers that share block tables: {result['groups']}; tokens scheduled ahead: at most {result['ahead']}"
    if result.get("cached"):
        yield f"{result['cached']} tokens from the prefix cache"


def pages(result: Result) -> int:
    """The most pages in use, each counted once for each layer: vLLM's blocks have a page of each layer of a group."""
    return result["peak"] * max(result["groups"])


def main(names: list[str]) -> int:
    """Run the cases and say what they show; 1 where one fails."""
    if unknown := [name for name in names if name not in CASES]:
        sys.exit(f"there is no case {unknown[0]!r}; there are {', '.join(CASES)}")
    if not names and subprocess.call([sys.executable, "-m", "pytest", "-q", str(HERE)]):
        return 1
    results: dict[str, Result] = {}
    failed = []
    print(f"a Llama with random weights, {MODEL}, blocks of 16 tokens", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in names or [name for name, case in CASES.items() if not case.asked]:
            case, start = CASES[name], time.time()
            result = ran(name, Path(folder))
            if isinstance(result, str):
                holds = bool(case.refused) and case.refused in result
                lines = [case.refused] if holds else result[-6000:].splitlines()
            else:
                own, results[name] = result["pattern"], result
                right = own["same"] == own["of"] and own["apart"] < APART
                wrong = own["same"] < own["of"] and own["apart"] > 100 * APART
                holds = (wrong if case.is_wrong else right) and case.holds(result, results)
                holds, lines = holds and not case.refused, list(told(name, result, results.get("dense")))
            failed += [name] * (not holds)
            print(f"{name:9} {'ok' if holds else 'FAILS'}: {case.about} ({time.time() - start:.0f} s)")
            print(*(f"          {line}" for line in lines), sep="\n", flush=True)
    if failed:
        print(f"these fail: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
