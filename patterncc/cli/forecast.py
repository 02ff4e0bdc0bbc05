"""`patterncc forecast`: what a pattern costs at a length."""

from __future__ import annotations

from collections.abc import Callable

from patterncc.analysis.costs.forecast import Forecast, forecast
from patterncc.analysis.costs.price import SIZES, amount
from patterncc.analysis.geometry.missing import runs
from patterncc.cli import output
from patterncc.cli.cache import count
from patterncc.cli.compile import one_of
from patterncc.cli.table import tokens
from patterncc.errors import UsageError
from patterncc.language import load
from patterncc.pipeline import lower
from patterncc.runtime.gallery import find

MOST_DEVICES = 4096
MOST_COLUMNS = 4


def run(name: str, length: str, dtype: str, devices: int, json: bool, csv: bool) -> int:
    """Figures for people, as JSON or as CSV."""
    one_of("--dtype", dtype, tuple(SIZES))
    if not 1 <= devices <= MOST_DEVICES:
        raise UsageError(f"--devices is {devices}; it takes 1 to {MOST_DEVICES}")
    pattern = load(find(name))
    known = forecast(lower(pattern), tokens(length), dtype, devices)
    if json:
        output.document(known.to_json())
    elif csv:
        print(known.to_csv(), end="")
    else:
        name = output.paint(known.name, output.BOLD)
        split = f"context over {count(devices, 'device')}"
        print(f"{name} at {known.length:,} token{'s' * (known.length != 1)}, {dtype}, {split}")
        tell(known)
    return 0


def tell(known: Forecast) -> None:
    """A line a figure; a column a layer class, and one for the model."""
    entries = [*known.layers[:MOST_COLUMNS], known.model]
    header = ["layers", *(runs(entry["layers"]) for entry in known.layers[:MOST_COLUMNS]), "model"]
    rows = [[words, *(say(entry[key]) for entry in entries)] for key, (words, say) in FIGURES.items()]
    output.columns(rows, header=header, right=header[1:], indent=2)
    if (left := len(known.layers) - MOST_COLUMNS) > 0:
        print(f"  and {left} more kinds of layers: --json or --csv has them")


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
    "kv_bytes_peak": ("KV cache, peak", _bytes),
    "kv_bytes_read": ("KV read by a step", _bytes),
    "table_bytes": ("as a table", _bytes),
    "imbalance": ("heaviest head / mean", _times),
    "imbalance_scheduled": ("busiest processor / mean", _times),
    "exchange_bytes_dense": ("exchanged, dense", _bytes),
    "exchange_bytes": ("exchanged, kept", _bytes),
}
