"""Hypothesis strategies for what the compiler works on: layouts, and pattern files over the whole language."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

from patterncc.ir.layout import KEY, QUERY, Layout, Mask, Random, Term


@st.composite
def terms(draw: st.DrawFn, *, closed: bool = False) -> Term:
    """Any term; with `closed` only such as the closed form can take: no rows, no columns but a prefix."""
    kinds = ["window", "far", "range", "stride", "stride in range", "sink"]
    kinds += [] if closed else ["columns", "rows", "rectangle"]
    kind = draw(st.sampled_from(kinds))
    low, size = draw(st.integers(-6, 9)), draw(st.integers(1, 6))
    every = draw(st.integers(2, 7))
    residue = {
        "every": every,
        "offset": draw(st.integers(0, every - 1)),
        "width": draw(st.integers(1, min(every, 3))),
        "anchor": draw(st.sampled_from([KEY, KEY, QUERY])),
    }
    bounds: dict[str, dict[str, Any]] = {
        "window": {"d_to": abs(low) + 1},
        "far": {"d_from": low},
        "range": {"d_from": low, "d_to": low + size},
        "stride": residue,
        "stride in range": residue | {"d_from": low, "d_to": draw(st.sampled_from([None, low + size]))},
        "sink": {"j_to": size},
        "columns": {"j_from": abs(low), "j_to": abs(low) + size},
        "rows": {"i_from": abs(low), "i_to": draw(st.sampled_from([None, abs(low) + size]))},
        "rectangle": {"i_from": low, "j_to": size + 2, "d_from": draw(st.sampled_from([None, 1]))} | residue,
    }
    return Term(**bounds[kind])


@st.composite
def masks(draw: st.DrawFn, most: int = 9) -> Mask:
    rows, columns = draw(st.integers(1, most)), draw(st.integers(1, most))
    bits = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    return Mask(rows, columns, np.packbits(np.array(bits)).tobytes())


@st.composite
def layouts(draw: st.DrawFn, *, closed: bool = False) -> Layout:
    """Any layout: several terms, and the parts given in tokens, drawn or masked."""
    window = st.none() | st.tuples(st.integers(1, 14), st.integers(1, 8))
    return Layout(
        tuple(draw(st.lists(terms(closed=closed), max_size=4))),
        window=draw(window),
        sink=draw(st.sampled_from([0, 0, 1, 3, 7])),
        random=None if closed else draw(st.none() | st.builds(Random, st.integers(1, 4), st.integers(0, 2**31 - 1))),
        mask=None if closed else draw(st.none() | masks()),
        chunk=draw(st.sampled_from([0, 0, 2, 3, 5])),
    )


@st.composite
def banded(draw: st.DrawFn) -> Layout:
    """A causal layout with a band of distances in tokens, beyond its window."""
    layout = draw(layouts())
    low = (layout.window[0] if layout.window else 0) + draw(st.integers(1, 9))
    return replace(layout, bands=((low, draw(st.none() | st.integers(low + 1, low + 12))),))


@st.composite
def patterns(
    draw: st.DrawFn, *, folder: Path | None = None, most_layers: int = 3, most_heads: int = 6, sizes: bool = False
) -> str:
    """The text of a valid pattern file, small: any keys of the language, any values. `mask` needs a folder, into
    which the masks are written. `sizes`: `layouts` may state heads and widths of their own."""
    heads = draw(st.integers(1, most_heads))
    layers = draw(st.integers(1, most_layers))
    causal = draw(st.booleans())
    document: dict[str, Any] = {
        "pattern": 1,
        "name": "drawn",
        "heads": heads,
        "kv_heads": draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0])),
        "head_dim": draw(st.sampled_from([16, 24, 32])),
        "layers": layers,
        "block": 16,
        "causal": causal,
    }
    document |= draw(
        st.sampled_from(
            [{}, {"promises": {}}, {"about": "Drawn, not designed: 日本"}, {"softcap": 2.5}, {"scale": 0.3}]
        )
    )
    document |= draw(st.sampled_from([{}, {}, {"v_head_dim": 16}, {"v_head_dim": 40}]))
    other = sorted(draw(st.sets(st.integers(0, layers - 1), max_size=layers)))
    dense, named = [n for n in other if n % 2], [n for n in other if n % 2 == 0]
    document |= {"dense_layers": dense} if dense else {}
    if named:
        own = draw(_sizes(most_heads, document["kv_heads"])) if sizes else {}
        shards = draw(_shards(own.get("heads", heads), causal, folder))
        document["layouts"] = [{"layers": named, **own, "shards": shards}]
    if len(other) < layers:
        document["shards"] = draw(_shards(heads, causal, folder))
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


@st.composite
def _sizes(draw: st.DrawFn, most_heads: int, kv_heads: int) -> dict[str, Any]:
    """Some of the sizes that an entry of `layouts` may state; without kv_heads, the pattern's."""
    found: dict[str, Any] = {}
    if draw(st.booleans()):
        found["heads"] = kv_heads * draw(st.integers(1, max(1, most_heads // kv_heads)))
        if draw(st.booleans()):
            found["kv_heads"] = draw(
                st.sampled_from([n for n in range(1, found["heads"] + 1) if found["heads"] % n == 0])
            )
    if draw(st.booleans()):
        found["head_dim"] = draw(st.sampled_from([16, 24, 40]))
    if draw(st.booleans()):
        found["v_head_dim"] = draw(st.sampled_from([16, 24, 40]))
    return found


@st.composite
def _shards(draw: st.DrawFn, heads: int, causal: bool, folder: Path | None) -> list[dict[str, Any]]:
    """Entries that claim every head once, in the various ways of selecting."""
    cut = draw(st.integers(0, heads))
    if cut in (0, heads):
        selectors: list[Any] = [draw(st.sampled_from(["all", "rest", f"0-{heads - 1}", "::1"]))]
    elif draw(st.booleans()) and heads > 1:
        selectors = ["0::2", "1::2"]
    else:
        selectors = [draw(st.sampled_from([f"0-{cut - 1}", list(range(cut)), f":{cut}"])), "rest"]
    return [{"heads": selector} | draw(_parts(causal, folder)) for selector in selectors]


@st.composite
def _parts(draw: st.DrawFn, causal: bool, folder: Path | None) -> dict[str, Any]:
    if draw(st.integers(0, 9)) == 0:
        return {"dense": True}
    every = draw(st.integers(1, 8))
    length = st.integers(1, 6) | st.integers(1, 70).map(lambda n: f"{n} tokens") | st.just("h + 2")
    local = length if causal else length | _sides()
    stride = {"stride": every, "offset": draw(_offsets(every)), "width": draw(st.integers(1, every))}
    mask_or_not = {"mask": _mask_file(folder)} if folder else {}
    values: dict[str, st.SearchStrategy[Any]] = {
        "local": local,
        "stride": st.just(every),
        "strides": st.lists(_stride() | _band() if causal else _stride(), min_size=1, max_size=3),
        "sink": st.integers(1, 3) | st.integers(1, 40).map(lambda n: f"{n} tokens") | st.just("g + 1"),
        "chunk": st.integers(1, 5) | st.integers(1, 4).map(lambda n: f"{16 * n} tokens") | st.just("h + 2"),
        "globals": _globals(),
        "random": st.fixed_dictionaries({"blocks": st.integers(1, 4), "seed": st.integers(0, 99) | st.just("h")}),
        **mask_or_not,
    }
    chosen = draw(st.sets(st.sampled_from(sorted(values)), min_size=1, max_size=3))
    parts = {key: draw(values[key]) for key in values if key in chosen}
    if "stride" in parts:
        parts |= {key: value for key, value in stride.items() if key == "stride" or draw(st.booleans())}
    return parts


def _offsets(every: int) -> st.SearchStrategy[Any]:
    number = st.integers(0, every - 1)
    return number | st.lists(number, min_size=1, max_size=3) | st.sampled_from(["h", "g", "-(h + 1)", "3 * l + h // 2"])


@st.composite
def _sides(draw: st.DrawFn) -> dict[str, Any]:
    unit = draw(st.sampled_from(["", " tokens"]))
    sides = {key: draw(st.integers(1, 40 if unit else 4)) for key in ("before", "after")}
    return {key: f"{value}{unit}" if unit else value for key, value in sides.items()}


@st.composite
def _stride(draw: st.DrawFn) -> dict[str, Any]:
    every, low = draw(st.integers(1, 6)), draw(st.integers(0, 5))
    optional = {
        "offset": _offsets(every),
        "width": st.integers(1, every),
        "anchor": st.sampled_from(["key", "query"]),
        "from": st.just(low),
        "to": st.integers(low + 1, low + 6),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(optional))))
    return {"every": every} | {key: draw(value) for key, value in optional.items() if key in chosen}


@st.composite
def _band(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(0, 70))
    ends = {"from": f"{low} tokens", "to": f"{low + draw(st.integers(1, 60))} tokens"}
    chosen = draw(st.sampled_from([["from"], ["to"], ["from", "to"]]))
    return {"every": 1} | {key: ends[key] for key in chosen}


@st.composite
def _globals(draw: st.DrawFn) -> dict[str, Any]:
    index = st.integers(0, 9) | st.sampled_from(["0-1", "3-5"])
    keys = draw(st.sampled_from([["rows"], ["columns"], ["rows", "columns"]]))
    return {key: draw(st.lists(index, min_size=1, max_size=3, unique_by=str)) for key in keys}


@st.composite
def _mask_file(draw: st.DrawFn, folder: Path) -> str:
    mask = draw(masks())
    bits = np.unpackbits(np.frombuffer(mask.bits, np.uint8), count=mask.rows * mask.columns)
    name = f"mask_{mask.rows}x{mask.columns}_{mask.bits.hex()}.npy"
    np.save(folder / name, bits.reshape(mask.rows, mask.columns).astype(np.bool_))
    return name
