"""`patterncc forecast`: what a pattern costs at a length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patterncc.advice.requests import Fit, fit, memory
from patterncc.advice.shapes import ModelShape, read_model
from patterncc.analysis.costs.forecast import Forecast, forecast
from patterncc.analysis.costs.price import SIZES, amount
from patterncc.analysis.geometry.missing import runs
from patterncc.cli import output
from patterncc.cli.compile import one_of
from patterncc.cli.table import tokens
from patterncc.errors import UsageError, counted, size_of
from patterncc.language import load
from patterncc.language.shape import SIZES as KEYS
from patterncc.passes import lower
from patterncc.runtime.gallery import find

if TYPE_CHECKING:
    from patterncc.language import Pattern

MOST_DEVICES = 4096
MOST_BATCH = 2**20
MOST_COLUMNS = 4


def run(
    name: str,
    length: str,
    dtype: str,
    devices: int,
    batch: int,
    model: Path | None,
    size: str | None,
    json: bool,
    csv: bool,
) -> int:
    """Figures for people, as JSON or as CSV; of `batch` requests too where a model, a memory or a batch is given."""
    one_of("--dtype", dtype, tuple(SIZES))
    if json and csv:
        raise UsageError("--json and --csv are two forms of the same figures: give one, not both")
    if not 1 <= devices <= MOST_DEVICES:
        raise UsageError(f"--devices is {devices}; it takes 1 to {MOST_DEVICES}")
    if not 1 <= batch <= MOST_BATCH:
        raise UsageError(f"--batch is {batch}; it takes 1 to {MOST_BATCH:,}")
    card = memory(size, "--memory") if size is not None else None
    pattern = load(find(name))
    shape = read_model(model) if model else None
    if shape is not None:
        check_shape(pattern, shape)
    known = forecast(lower(pattern), tokens(length), dtype, devices)
    asked = batch > 1 or shape is not None or card is not None
    request = requested(known.model, batch, shape, card) if asked else None
    if json:
        output.document(known.to_json() | ({"request": request} if request else {}))
    elif csv:
        print(known.to_csv(), end="")
    else:
        name = output.paint(known.name, output.BOLD)
        split = f"context over {counted(devices, 'device')}"
        print(f"{name} at {counted(known.length, 'token')}, {dtype}, {split}")
        tell(known)
        if request:
            tell_request(request)
    return 0


def check_shape(pattern: Pattern, shape: ModelShape) -> None:
    """UsageError where a model's attention is not the pattern's, in any layer."""
    differ = bool(shape.by_layer) or len(set(pattern.shapes)) > 1
    for layer, ours in enumerate(pattern.shapes[: shape.layers]):
        theirs = shape.by_layer[layer] if shape.by_layer else shape
        for key in KEYS:
            a, b = getattr(theirs, key), getattr(ours, key)
            if a != b:
                where = f" in layer {layer}" if differ else ""
                raise UsageError(f"the model has {size_of(key, a)}, the pattern {pattern.name} has {b}{where}")
    if shape.layers != pattern.layers:
        raise UsageError(
            f"the model has {size_of('layers', shape.layers)}, the pattern {pattern.name} has {pattern.layers}"
        )


def requested(figures: dict[str, Any], batch: int, shape: ModelShape | None, card: int | None) -> dict[str, Any]:
    """Bytes of `batch` requests and of the weights, two bytes a number, and how many requests fit into the memory."""
    kept, dense = figures["kv_bytes_kept"], figures["kv_bytes_dense"]
    weights = 2 * shape.weights if shape and shape.weights else None
    found = fit(card, weights or 0, kept, dense) if card is not None else None
    return {
        "batch": batch,
        "kv_bytes_kept": batch * kept,
        "kv_bytes_paged": batch * figures["kv_bytes_paged"],
        "kv_bytes_dense": batch * dense,
        "weights_bytes": weights,
        "memory": card,
        "fits": found.kept if found else None,
        "fits_dense": found.dense if found else None,
    }


def tell_request(request: dict[str, Any]) -> None:
    """Print one line on the batch and one on the card."""
    kept, paged, dense = (_bytes(request[f"kv_bytes_{kind}"]) for kind in ("kept", "paged", "dense"))
    print(f"  {counted(request['batch'], 'request')}: KV cache {kept} kept, {paged} in pages, {dense} dense")
    if request["weights_bytes"]:
        print(f"  weights: {_bytes(request['weights_bytes'])} at 2 bytes each; activations are not counted")
    if request["memory"] is not None:
        fits = Fit(request["memory"], request["weights_bytes"] or 0, request["fits"], request["fits_dense"])
        print(f"  {_bytes(request['memory'])}: {fits}")


def tell(known: Forecast) -> None:
    """Print a table: one line a figure, one column a layer class, and one for the model."""
    entries = [*known.layers[:MOST_COLUMNS], known.model]
    header = ["layers", *(runs(entry["layers"]) for entry in known.layers[:MOST_COLUMNS]), "model"]
    rows = [[words, *(text_of(entry[key]) for entry in entries)] for key, (words, text_of) in FIGURES.items()]
    output.columns(rows, header=header, right=header[1:], indent=2)
    if (left := len(known.layers) - MOST_COLUMNS) > 0:
        print(f"  and {counted(left, 'more kind')} of layers: --json or --csv has all")


def _percent(x: float) -> str:
    return f"{x:.1%}"


def _times(x: float) -> str:
    return f"{x:.2f}x"


def _bytes(x: float) -> str:
    return amount(x, "B", 1024)


def _flops(x: float) -> str:
    return amount(x, "FLOP", 1000)


FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "density": ("kept token pairs", _percent),
    "speedup": ("ideal speed-up", _times),
    "flops_forward": ("forward", _flops),
    "flops_backward": ("backward", _flops),
    "kv_bytes_dense": ("KV cache, dense", _bytes),
    "kv_bytes_kept": ("KV cache, kept", _bytes),
    "kv_bytes_paged": ("KV cache, in pages", _bytes),
    "kv_bytes_peak": ("KV cache, peak", _bytes),
    "kv_bytes_read": ("KV read by a step", _bytes),
    "table_bytes": ("as a table", _bytes),
    "imbalance": ("heaviest head / mean", _times),
    "imbalance_scheduled": ("busiest processor / mean", _times),
    "exchange_bytes_dense": ("exchanged, dense", _bytes),
    "exchange_bytes": ("exchanged, kept", _bytes),
}
