"""`patterncc suggest`: which patterns fit a model and a budget, proved and priced."""

from __future__ import annotations

from pathlib import Path

from patterncc.advice.requests import memory
from patterncc.advice.shapes import ModelShape, read_model
from patterncc.advice.suggest import Candidate, Member, Wish, suggest
from patterncc.analysis.costs.price import amount
from patterncc.cli import output
from patterncc.cli.compile import targets
from patterncc.cli.table import tokens
from patterncc.errors import UsageError, counted, quote
from patterncc.files import replace
from patterncc.language import limits
from patterncc.pictures.front import Point, front_svg

COVERAGE = ("layer", "model")
BY = {"h": "query head", "g": "KV head", "turning": "KV head, layer"}
MOST = 4096


def run(
    model: Path | None,
    heads: int | None,
    kv_heads: int | None,
    head_dim: int,
    v_head_dim: int | None,
    layers: int | None,
    length: str,
    kv_budget: str | None,
    batch: int,
    density: str | None,
    coverage: str | None,
    dense_layers: int | None,
    arch: str | None,
    file: Path | None,
    plot: Path | None,
    json: bool,
) -> int:
    """A table of candidates, the recommended one's YAML in `file`; 1 where none fits the budget."""
    shape = _shape(model, heads, kv_heads, head_dim, v_head_dim, layers)
    wish = _wish(shape, length, kv_budget, batch, density, coverage, dense_layers, arch)
    if plot is not None and plot.suffix != ".svg":
        raise UsageError(f"--plot is {quote(str(plot), 200)}; it writes .svg")
    candidates, speed = suggest(shape, wish)
    chosen = next((one for one in candidates if one.recommended), None)
    if file is not None and chosen is not None:
        replace(file, chosen.yaml.encode())
    if plot is not None:
        points = [Point(one.kv_bytes, one.density, _words(one), one.recommended) for one in candidates]
        replace(plot, front_svg(points, shape.kv_bytes(wish.length)).encode())
    if json:
        output.document({"candidates": [one.to_json() for one in candidates]})
        return 0 if chosen else 1
    _tell(candidates, shape, wish)
    if arch and speed:
        output.note(f"seconds: a model from measured rates ({speed.source}), one sequence, all layers")
    elif arch:
        output.note(f"seconds: nothing was measured for {arch}; the table has ratios only")
    if chosen is None:
        given = [option for option, value in (("--kv-budget", kv_budget), ("--density", density)) if value is not None]
        output.note(f"none of these fits; ask for a larger {' or '.join(given or ['--kv-budget', '--density'])}")
        return 1
    print(f"\nrecommended: {chosen.why}")
    print(chosen.yaml if file is None else f"written to {file}")
    return 0


def _wish(
    shape: ModelShape,
    length: str,
    kv_budget: str | None,
    batch: int,
    density: str | None,
    coverage: str | None,
    dense_layers: int | None,
    arch: str | None,
) -> Wish:
    """What the options ask for; UsageError for one that cannot be."""
    if coverage is not None and coverage not in COVERAGE:
        raise UsageError(f"--coverage is {quote(coverage)}; one of {', '.join(COVERAGE)}")
    if not 1 <= batch <= 2**20:
        raise UsageError(f"--batch is {batch}; it takes 1 to {2**20:,}")
    if dense_layers is not None and not 0 <= dense_layers < shape.layers:
        raise UsageError(
            f"--dense-layers is {dense_layers}; the model has {counted(shape.layers, 'layer')}, and one must be left"
        )
    if len(targets(arch)) > 1:
        raise UsageError(f"--arch is {quote(arch or '', 60)}; seconds are told for one GPU at a time")
    budget = memory(kv_budget, "--kv-budget") if kv_budget is not None else None
    return Wish(tokens(length), budget, batch, _share(density), coverage, dense_layers, arch)


def _tell(candidates: list[Candidate], shape: ModelShape, wish: Wish) -> None:
    """Print the table of candidates."""
    dense = shape.kv_bytes(wish.length)
    print(
        f"{counted(shape.heads, 'head')} on {shape.kv_heads}, {counted(shape.layers, 'layer')}, "
        f"{counted(wish.length, 'token')}; a dense cache is "
        f"{amount(dense, 'B', 1024)} a request"
    )
    header = ["", "window", "stride", "by", "dense", "KV a request", "paged", "work", "coverage", "busiest", "sent"]
    header += ["forward", "backward"] if any(one.seconds for one in candidates) else []
    rows = []
    for one in candidates:
        member = one.member
        row = [
            "*" if one.recommended else "",
            f"{member.window * 64:,}",
            str(member.stride),
            BY[member.offset],
            _dense(member) or "-",
            amount(one.kv_bytes, "B", 1024),
            amount(one.kv_bytes_paged, "B", 1024),
            f"{one.density:.1%}",
            member.coverage,
            f"{one.balance:.2f}x",
            amount(one.exchange_bytes, "B", 1024),
        ]
        rows.append(row + ([f"{s:.3g} s" for s in one.seconds] if one.seconds else []))
    output.columns(rows, header=header, right=header[5:], indent=2)


def _dense(member: Member) -> str:
    """What of a pattern is dense: "2 layers, 4 heads", or nothing."""
    parts = ((member.dense_layers, "layer"), (member.dense_heads, "head"))
    return ", ".join(counted(n, what) for n, what in parts if n)


def _words(one: Candidate) -> str:
    """A candidate in a line."""
    member, dense = one.member, _dense(one.member)
    text = f"window {member.window * 64:,}, stride {member.stride} by {BY[member.offset].replace(', ', ' and ')}"
    return text + (f", dense: {dense}" if dense else "")


def _shape(
    model: Path | None,
    heads: int | None,
    kv_heads: int | None,
    head_dim: int,
    v_head_dim: int | None,
    layers: int | None,
) -> ModelShape:
    """The model\'s shape from its file or from the options; raises UsageError for one that cannot be."""
    if model is not None:
        if heads or kv_heads or layers:
            raise UsageError("--model says heads, KV heads and layers: give it, or these, not both")
        shape = read_model(model)
        if shape.by_layer:
            raise UsageError(
                "the model's layers differ in heads or widths; patterns are suggested for layers of one shape",
                "give --heads, --kv-heads, --head-dim and --layers of the layers that are to be sparse",
            )
    else:
        if not heads or not layers:
            raise UsageError("suggest needs --model config.json, or --heads and --layers", "and --kv-heads, --head-dim")
        shape = ModelShape(heads, kv_heads or heads, head_dim, layers, v_head_dim=v_head_dim or head_dim)
    for option, value in (("--heads", shape.heads), ("--kv-heads", shape.kv_heads), ("--layers", shape.layers)):
        if not 1 <= value <= MOST:
            raise UsageError(f"{option} is {value}; it takes 1 to {MOST:,}")
    if shape.heads * shape.layers > limits.MOST_SHARDS:
        many = f"{counted(shape.heads, 'head')} in {counted(shape.layers, 'layer')}"
        raise UsageError(f"{many} are {shape.heads * shape.layers:,}; a pattern has {limits.MOST_SHARDS:,} at most")
    if shape.heads % shape.kv_heads:
        raise UsageError(f"{counted(shape.heads, 'head')} cannot share {counted(shape.kv_heads, 'KV head')} evenly")
    for option, value in (("--head-dim", shape.head_dim), ("--v-head-dim", shape.v_head_dim)):
        if not 1 <= value <= limits.MOST_HEAD_DIM:
            raise UsageError(f"{option} is {value}; it takes 1 to {limits.MOST_HEAD_DIM}")
    return shape


def _share(text: str | None) -> float | None:
    """A share of the work: "1/16", "0.1" or "10%"."""
    if text is None:
        return None
    try:
        if "/" in text:
            above, below = text.split("/")
            value = float(above) / float(below)
        else:
            value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if not 0 < value <= 1:
        raise UsageError(f"--density is {quote(text, 40)}; it takes a share of the work", "1/16, 0.1 or 10%")
    return value
