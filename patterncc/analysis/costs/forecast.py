"""What a pattern costs at a length: work, memory and traffic, without running it.

Per layer class the figures are those of one layer (batch 1); for the model they are summed over its layers, ratios are
taken over all of it. Everything is counted exactly (`weights`, `live`); nothing is measured.

density           kept token pairs / causal token pairs (square ones when not causal), mean over heads
blocks            blocks of which any token pair is kept, summed over heads
flops_forward     2 x (head_dim + v_head_dim) per kept token pair: two products, each a multiply and an add; backward:
                  five products, three along head_dim and two along v_head_dim
kv_bytes_dense    K and V of all tokens; kv_bytes_kept: of those that the newest token or a later one may attend
                  (`live_tokens`), each KV head keeping the union of its query heads' needs: what the compact cache
                  holds
kv_bytes_peak     the most that is ever live up to this length; kv_live_forever: the share of old blocks never dropped
kv_bytes_paged    of the pages that an engine with pages of 16 tokens holds: a page lives while any head of its layer
                  reads any of it, so it is more than what is kept when heads differ
kv_bytes_read     K and V that decoding the last token read, each KV head's once
table_bytes       the index map as a table: int32 columns and row pointers, once for each distinct head
imbalance         heaviest head / mean head; imbalance_rows: heaviest row / mean row, of the heaviest head;
imbalance_scheduled: busiest of `processors` / mean, when tiles are launched heaviest first
exchange_bytes    K and V sent, in all, when the context is split over `devices` in equal runs
speedup           dense work / kept work: what a kernel as efficient as dense would gain
heads, kv_heads   the figures by head; of the model, means of densities and sums of bytes over the layers that have it
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from patterncc.analysis.costs.exchange import dense_exchange, exchanged_tokens
from patterncc.analysis.costs.live import held
from patterncc.analysis.costs.paged import paged_tokens
from patterncc.analysis.costs.price import SIZES
from patterncc.analysis.costs.schedule import busiest
from patterncc.analysis.costs.weights import Weights, token_pairs, weights
from patterncc.analysis.geometry.extent import extent
from patterncc.analysis.geometry.finite import kept_whole
from patterncc.analysis.geometry.union import Union, union
from patterncc.analysis.scopes import kv_groups, layer_classes
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.lazy import np


@dataclass(frozen=True)
class Forecast:
    """The figures of one pattern at one length."""

    name: str
    length: int
    dtype: str
    devices: int
    layers: tuple[dict[str, Any], ...]  # one a layer class
    model: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `forecast --json` prints."""
        return {
            "name": self.name,
            "length": self.length,
            "dtype": self.dtype,
            "devices": self.devices,
            "layers": list(self.layers),
            "model": self.model,
        }

    def to_csv(self) -> str:
        """One line a layer class and one for the model; lists (per head) are left out."""
        keys = [key for key, value in self.model.items() if not isinstance(value, list | dict) and key != "layers"]
        lines = [",".join(["layers", *keys])]
        for entry in (*self.layers, self.model):
            name = " ".join(map(str, entry["layers"])) if entry is not self.model else "model"
            lines.append(",".join([name, *(str(entry[key]) for key in keys)]))
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Head:
    weights: Weights
    pairs: int
    blocks: int
    table_bytes: int


def forecast(classes: Classes, length: int, dtype: str = "bf16", devices: int = 8, processors: int = 132) -> Forecast:
    """The figures at `length` tokens."""
    if length < 1:
        raise ValueError(f"a forecast needs at least one token, not {length}")
    heads = [_head(layout, classes, length) for layout in classes.layouts]
    groups: dict[frozenset[int], dict[str, int]] = {}
    entries = [
        _layer(classes, layers, heads, groups, length, SIZES[dtype], devices, processors)
        for layers in layer_classes(classes)
    ]
    return Forecast(classes.name, length, dtype, devices, tuple(entries), _model(classes, entries, heads))


def _head(layout: Layout, classes: Classes, length: int) -> _Head:
    rows = -(-length // classes.block)
    known = weights(layout, classes.causal, classes.block, rows)
    blocks = known.total(rows)[0]
    pairs = token_pairs(layout, classes.causal, classes.block, length, known)
    return _Head(known, pairs, blocks, 4 * (blocks + rows + 1))


def _layer(
    classes: Classes,
    layers: tuple[int, ...],
    heads: list[_Head],
    groups: dict[frozenset[int], dict[str, int]],
    length: int,
    size: int,
    devices: int,
    processors: int,
) -> dict[str, Any]:
    """The figures of one of these layers, which are alike; `groups`, by the classes of a KV head, is filled."""
    row = classes.of[layers[0]]
    shape = classes.shape(layers[0])
    token = (shape.head_dim + shape.v_head_dim) * size  # bytes of K and V of one token and one KV head
    all_pairs = length * (length + 1) // 2 if classes.causal else length * length
    pairs = [heads[k].pairs for k in row]
    kept = []
    for group in kv_groups(classes, layers[0]):
        key = frozenset(row[head] for head in group)
        if key not in groups:
            groups[key] = _group(classes, tuple(classes.layouts[k] for k in sorted(key)), length, devices)
        kept.append(groups[key])
    mean = sum(pairs) / len(pairs)
    rows = -(-length // classes.block)
    dense = dense_exchange(classes.block, length, devices, classes.causal)
    heaviest = heads[row[pairs.index(max(pairs))]]
    return {
        "layers": list(layers),
        "density": mean / all_pairs,
        "speedup": all_pairs / mean if mean else None,
        "blocks": sum(heads[k].blocks for k in row),
        "token_pairs": sum(pairs),
        "flops_forward": 2 * (shape.head_dim + shape.v_head_dim) * sum(pairs),
        "flops_backward": 2 * (3 * shape.head_dim + 2 * shape.v_head_dim) * sum(pairs),
        "kv_bytes_dense": length * shape.kv_heads * token,
        "kv_bytes_kept": sum(g["live"] for g in kept) * token,
        "kv_bytes_peak": sum(g["peak"] for g in kept) * token,
        "kv_bytes_paged": paged_tokens(classes, layers[0], length) * shape.kv_heads * token,
        "kv_bytes_read": sum(g["read"] for g in kept) * token,
        "kv_live_forever": sum(g["forever"] for g in kept) / len(kept) / rows,
        "table_bytes": sum(heads[k].table_bytes for k in set(row)),
        "imbalance": max(pairs) / mean if mean else 1.0,
        "imbalance_rows": _row_imbalance(heaviest.weights, rows),
        "imbalance_scheduled": busiest([heads[k].weights for k in row], rows, processors),
        "exchange_bytes": sum(g["exchanged"] for g in kept) * token,
        "exchange_bytes_dense": dense * shape.kv_heads * token,
        "heads": [{"head": h, "density": p / all_pairs} for h, p in enumerate(pairs)],
        "kv_heads": [
            {"kv_head": g, "kv_bytes_kept": x["live"] * token, "kv_bytes_read": x["read"] * token}
            for g, x in enumerate(kept)
        ],
    }


def _group(classes: Classes, kept: tuple[Layout, ...], length: int, devices: int) -> dict[str, int]:
    """Live, peak, read, ever-live and exchanged keys of one KV head."""
    exchanged = exchanged_tokens(kept, classes.block, length, devices, classes.causal)
    moved = {"read": _read(kept, classes.block, length - 1), "exchanged": exchanged}
    if not classes.causal:  # an earlier token may attend it: nothing is dropped
        return {"live": length, "peak": length, "forever": -(-length // classes.block), **moved}
    live = held(kept, classes.block, length)
    return {"live": live.tokens, "peak": live.peak, "forever": live.forever, **moved}


def _read(kept: tuple[Layout, ...], block: int, t: int) -> int:
    """Keys that query token t attends, over the heads."""
    whole = union(kept)
    bound, period = extent(whole)
    start = 2 * max(
        bound,
        *((high or low) // block + 2 for low, high in whole.bands),
        (whole.window[0] if whole.window else 0) // block + 2,
        whole.sink // block + 1,
    )
    turns = (t // block - start) // period - 1
    if turns <= 0 or whole.opaque:
        return _read_row(whole, block, t)
    less = t - turns * period * block  # what a row keeps grows evenly, as in `weights`
    first, second = (_read_row(whole, block, less + k * period * block) for k in (0, 1))
    return first + turns * (second - first)


def _read_row(whole: Union, block: int, t: int) -> int:
    row, columns = np.array([t // block]), t // block + 1
    tokens = np.repeat(kept_whole(whole, row, columns)[0], block)[: t + 1]
    if whole.window:
        tokens[max(0, t - whole.window[0] + 1) :] = True
    for low, high in whole.bands:
        tokens[max(0, t - (high or t + 1) + 1) : max(0, t - low + 1)] = True
    tokens[: whole.sink] = True
    return int(tokens.sum())


def _row_imbalance(known: Weights, rows: int) -> float:
    total = known.total(rows)[1]
    top = max(int(known.tokens[:rows].max()), known.row(rows - 1)[1])
    if known.period:
        top = max(top, *(known.row(i)[1] for i in range(max(0, rows - known.period), rows)))
    return top * rows / total if total else 1.0


def _model(classes: Classes, entries: list[dict[str, Any]], heads: list[_Head]) -> dict[str, Any]:
    """The figures of all layers together: sums of bytes and work, means of shares, the worst of what is uneven."""
    counts = [len(entry["layers"]) for entry in entries]

    def total(key: str) -> int:
        return sum(n * entry[key] for n, entry in zip(counts, entries, strict=True))

    density = total("density") / classes.layers
    if len({len(row) for row in classes.of}) > 1:  # layers with more heads weigh more
        heads_in_all = sum(map(len, classes.of))
        density = sum(len(e["layers"]) * sum(head["density"] for head in e["heads"]) for e in entries) / heads_in_all
    summed = (
        "blocks", "token_pairs", "flops_forward", "flops_backward", "kv_bytes_dense", "kv_bytes_kept", "kv_bytes_peak",
        "kv_bytes_paged", "kv_bytes_read",
    )  # fmt: skip
    return {
        "layers": list(range(classes.layers)),
        "density": density,
        "speedup": 1 / density if density else None,
        **{key: total(key) for key in summed},
        "kv_live_forever": total("kv_live_forever") / classes.layers,
        "table_bytes": sum(head.table_bytes for head in heads),
        "imbalance": max(entry["imbalance"] for entry in entries),
        "imbalance_rows": max(entry["imbalance_rows"] for entry in entries),
        "imbalance_scheduled": max(entry["imbalance_scheduled"] for entry in entries),
        "exchange_bytes": total("exchange_bytes"),
        "exchange_bytes_dense": total("exchange_bytes_dense"),
        "heads": [
            {"head": h, "density": sum(n * x["density"] for n, x in there) / sum(n for n, _ in there)}
            for h, there in enumerate(_numbered("heads", counts, entries))
        ],
        "kv_heads": [
            {"kv_head": g, **{key: sum(n * x[key] for n, x in there) for key in ("kv_bytes_kept", "kv_bytes_read")}}
            for g, there in enumerate(_numbered("kv_heads", counts, entries))
        ],
    }


def _numbered(key: str, counts: list[int], entries: list[dict[str, Any]]) -> list[list[tuple[int, dict[str, Any]]]]:
    """For each number of a head, its figures in the layer classes that have it, each with the class's layers."""
    return [
        [(n, entry[key][number]) for n, entry in zip(counts, entries, strict=True) if number < len(entry[key])]
        for number in range(max(len(entry[key]) for entry in entries))
    ]
