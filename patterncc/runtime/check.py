"""The compiled package compared with the reference: its masks and tables exactly, its attention up to rounding."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from patterncc.analysis.scopes import layer_classes
from patterncc.analysis.verdict import Verdict, at_tokens
from patterncc.analysis.verify import prove_for_caches
from patterncc.codegen.module import specialise_package
from patterncc.ir.classes import Classes
from patterncc.lazy import np
from patterncc.passes.choose_plan import choose_plan
from patterncc.passes.lower_table import lower_table
from patterncc.pictures.text import telling_rows
from patterncc.runtime.cache import Cache
from patterncc.runtime.load import forget, load
from patterncc.runtime.parts import part_of, parts_of

if TYPE_CHECKING:
    from patterncc.language.model import Pattern

MOST_TOKENS = 1600  # of a dense mask in fp64
INTERPRETED_ROWS = 5
TOLERANCE = 2e-5  # sums of fp32 products of unit normals, against fp64
HALF_TOLERANCE = 2e-2  # bf16 inputs on a GPU


def check_kernels(pattern: Pattern, classes: Classes) -> tuple[Verdict, ...]:
    """Verdicts for each layer class: `mask` and `table` exactly, `attention` on the CPU path, and `kernel`: the kernels
    themselves with each form of the index map, in Triton's interpreter, or on the GPU if there is one."""
    rows = telling_rows(classes.layouts, classes.block, least=6, most=64)
    length = min(rows * classes.block + 5, MOST_TOKENS - 1)
    verdicts: list[Verdict] = []
    with built(pattern, classes) as packages:
        for layers in layer_classes(classes):
            for check in (_mask, _table, _attention, *(_kernel,) * _has_kernels()):
                start = perf_counter()
                verdict = check(pattern, classes, packages, layers, length)
                verdicts.append(_timed(verdict, perf_counter() - start))
    return tuple(verdicts)


@contextmanager
def interpreting(wanted: bool = True) -> Iterator[None]:
    """TRITON_INTERPRET is set, so that kernels imported here are interpreted, and packages take them; or it is not."""
    before = os.environ.pop("TRITON_INTERPRET", None)
    if wanted:
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        yield
    finally:
        os.environ.pop("TRITON_INTERPRET", None)
        if before is not None:
            os.environ["TRITON_INTERPRET"] = before


@contextmanager
def built(pattern: Pattern, classes: Classes) -> Iterator[dict[str, ModuleType]]:
    """The package in each form that the pattern has, imported from a folder that is removed again."""
    best = choose_plan(classes)
    plans = {form: choose_plan(classes, form) for form in dict.fromkeys((best.form, "table"))}
    facts = pattern.about, pattern.promises, pattern.source, prove_for_caches(classes)
    with tempfile.TemporaryDirectory(prefix="patterncc-") as folder:
        entries = {form: Cache(Path(folder)).store(specialise_package(plan, *facts)) for form, plan in plans.items()}
        try:
            with interpreting() if not _has_gpu() else nullcontext():  # before triton is imported
                packages = {form: load(entry) for form, entry in entries.items()}
                for package in packages.values() if _has_kernels() else ():
                    for part in parts_of(package):
                        importlib.import_module(f"{part}.launch.forward")
            yield packages
        finally:
            for entry in entries.values():
                forget(entry)


def _mask(
    pattern: Pattern, classes: Classes, packages: dict[str, Any], layers: tuple[int, ...], length: int
) -> Verdict:
    """dense_mask of the package is the definition's."""
    from patterncc.reference import mask

    package = next(iter(packages.values()))
    of_package = package.dense_mask(length, layer=layers[0])
    first: dict[int, int] = {}
    for head, number in enumerate(classes.of[layers[0]]):
        if not (of_package[head] == of_package[first.setdefault(number, head)]).all():
            return _verdict("mask", layers, False, f"heads {first[number]} and {head} share a class, not a mask")
    for head in first.values():
        wrong = (mask(pattern, layers[0], head, length) != of_package[head]).nonzero()
        if len(wrong):
            return _verdict("mask", layers, False, f"head {head}", (int(wrong[0, 0]), int(wrong[0, 1])), classes.block)
    return _verdict("mask", layers, True, f"equal to the definition at {length} tokens")


def _table(
    pattern: Pattern, classes: Classes, packages: dict[str, Any], layers: tuple[int, ...], length: int
) -> Verdict:
    """The tables that the package builds are those of the compiler."""
    package = part_of(next(iter(packages.values())), layers[0])
    tables = importlib.import_module(f"{package.__name__}.rules.tables")
    rows = -(-length // classes.block)
    of_package = importlib.import_module(f"{package.__name__}.pattern").CLASS_OF[layers[0]]
    for number, theirs in dict(zip(classes.of[layers[0]], of_package, strict=True)).items():
        known = lower_table(
            classes.layouts[number], causal=classes.causal, block=classes.block, rows=rows, columns=rows
        )
        pointers, _, columns = (part.tolist() for part in tables.row_table(theirs, rows, rows))
        for row in range(rows):
            listed = sorted(j for j in columns[pointers[row] : pointers[row + 1]] if j < rows)
            if listed != known.row(row).tolist():
                return _verdict(
                    "table", layers, False, f"class {number}, row {row}: {listed} for {known.row(row).tolist()}"
                )
    return _verdict("table", layers, True, f"equal to the compiler's tables at {rows} rows")


def _attention(
    pattern: Pattern, classes: Classes, packages: dict[str, Any], layers: tuple[int, ...], length: int
) -> Verdict:
    """Attention on the CPU is dense attention under the definition's mask."""
    package = next(iter(packages.values()))
    with interpreting(False):
        return _compared("attention", pattern, classes, {"cpu": package}, layers, length, "cpu", TOLERANCE)


def _kernel(
    pattern: Pattern, classes: Classes, packages: dict[str, Any], layers: tuple[int, ...], length: int
) -> Verdict:
    """Each form of the kernels gives dense attention under the definition's mask."""
    if _has_gpu():
        return _compared("kernel", pattern, classes, packages, layers, length, "cuda", HALF_TOLERANCE)
    with interpreting(), np.errstate(divide="ignore"):  # the LSE of a row without keys is log 0, in numpy
        # The interpreter is slow: a few rows, on both sides of a block's end, over keys that fill every kind of slot.
        length = length // classes.block * classes.block + 2
        return _compared("kernel", pattern, classes, packages, layers, length, "cpu", TOLERANCE, INTERPRETED_ROWS)


def _compared(
    scope: str,
    pattern: Pattern,
    classes: Classes,
    packages: dict[str, Any],
    layers: tuple[int, ...],
    length: int,
    device: str,
    tolerance: float,
    rows: int | None = None,
) -> Verdict:
    """Each package's attention over the first and the last KV head's group against the reference: of all queries, or of
    the last `rows`."""
    import torch

    from patterncc.reference import attention

    worst, text = 0.0, f"{length} tokens" if rows is None else f"the last {rows} of {length} tokens"
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    shape = classes.shape(layers[0])
    for kv_head in sorted({0, shape.kv_heads - 1} if rows is None else {shape.kv_heads - 1}):
        first, dim = kv_head * shape.group, shape.head_dim
        sizes = (shape.group, rows or length, dim), (1, length, dim), (1, length, shape.v_head_dim)
        q, k, v = (torch.randn(1, *size) for size in sizes)
        if pattern.scale:  # scores of order one, for which the tolerance is
            q /= pattern.scale * dim**0.5
        q, k, v = (x.to(dtype) for x in (q, k, v))
        sinks = torch.randn(shape.group) if shape.sinks else None
        wanted, _ = attention(pattern, q, k, v, layer=layers[0], head_offset=first, sinks=sinks)
        for form, package in packages.items():
            there = None if sinks is None else sinks.to(device)
            given = [x.to(device) for x in (q, k, v)]
            got = package.attention(*given, layer=layers[0], head_offset=first, sinks=there)
            error = float((got.cpu().double() - wanted).abs().max())
            if not error <= tolerance:  # also for NaN
                return _verdict(
                    scope, layers, False, f"{form}, KV head {kv_head}: wrong by {error:.2g} at {length} tokens"
                )
            worst = max(worst, error)
    return _verdict(scope, layers, True, f"{' and '.join(packages)}: within {worst:.1g} of dense at {text}")


def _has_gpu() -> bool:
    """Whether there is a GPU; asked of a torch that, if need be, is imported interpreting."""
    with interpreting() if "triton" not in sys.modules else nullcontext():
        import torch
    return torch.cuda.is_available()


def _has_kernels() -> bool:
    return importlib.util.find_spec("triton") is not None


def _verdict(
    scope: str, layers: tuple[int, ...], holds: bool, text: str, pair: tuple[int, int] | None = None, block: int = 1
) -> Verdict:
    witness = at_tokens(pair, block) if pair else None
    return Verdict("kernels", scope, layers, holds, text if holds else "by running it", witness, "" if holds else text)


def _timed(verdict: Verdict, seconds: float) -> Verdict:
    return replace(verdict, seconds=seconds)
