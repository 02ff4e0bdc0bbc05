"""Figures of whole forecasts: bytes, sums, balance, and known facts."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import replace

import numpy as np
import pytest

from patterncc.analysis.costs.balance import balance
from patterncc.analysis.costs.forecast import forecast
from patterncc.analysis.costs.live import live_tokens
from patterncc.analysis.costs.price import price
from patterncc.analysis.costs.schedule import busiest
from patterncc.analysis.costs.weights import Weights
from patterncc.ir.classes import Classes
from patterncc.ir.layout import Layout
from patterncc.language import load
from patterncc.passes import lower
from patterncc.runtime.gallery import shipped
from tests.analysis.oracle import classes_of


def s2(offset: str, *, block: int = 64, layers: int = 1) -> Classes:
    """32 heads, 8 KV heads, local 16, stride 16, offset g or h."""
    heads = [Layout.parse(f"d<16 | j%16=={(h // 4 if offset == 'g' else h) % 16}") for h in range(32)]
    return classes_of([heads] * layers, block=block, causal=True, kv_heads=8)


def test_offsets_that_differ_in_a_group_keep_more_alive():
    """The known fact: 7.0 % of a 128k cache with offset g, 25.6 % with offset h, at equal work."""
    g, h = forecast(s2("g"), 131_072).model, forecast(s2("h"), 131_072).model
    assert g["kv_bytes_kept"] / g["kv_bytes_dense"] == pytest.approx(0.070, abs=0.0005)
    assert h["kv_bytes_kept"] / h["kv_bytes_dense"] == pytest.approx(0.256, abs=0.0005)
    assert g["density"] == pytest.approx(h["density"], rel=0.01)
    assert live_tokens(s2("g"), 0, 0, 131_072) == 143 * 64 and live_tokens(s2("h"), 0, 0, 131_072) == 524 * 64


def test_bytes_and_sums():
    model = forecast(s2("g", layers=3), 4096, dtype="fp32")
    one = forecast(s2("g"), 4096, dtype="bf16")
    assert model.layers[0]["layers"] == [0, 1, 2] and len(model.layers) == 1
    assert model.layers[0]["kv_bytes_dense"] == 4096 * 8 * 2 * 64 * 4
    assert model.model["kv_bytes_dense"] == 3 * 2 * one.model["kv_bytes_dense"]
    assert model.model["density"] == pytest.approx(one.model["density"])
    assert one.model["density"] == pytest.approx(1 / one.model["speedup"])
    assert set(one.model) == set(one.layers[0])
    assert sum(entry["kv_bytes_kept"] for entry in one.layers[0]["kv_heads"]) == one.model["kv_bytes_kept"]


def test_heads_of_the_model_are_counted_over_its_layers():
    """Two layers of one kind and one of another; then heads that only some layers have."""
    rows = [["d<3", "d<2 | j%4==1", "d<3", "d<3"]] * 2 + [["all"] * 4]
    known = forecast(
        classes_of([[Layout.parse(x) for x in row] for row in rows], block=16, causal=True, kv_heads=2), 1001
    )
    first, second = (entry["heads"] for entry in known.layers)
    for h, head in enumerate(known.model["heads"]):
        assert head == {"head": h, "density": pytest.approx((2 * first[h]["density"] + second[h]["density"]) / 3)}
    for key in ("kv_bytes_kept", "kv_bytes_read"):
        assert sum(entry[key] for entry in known.model["kv_heads"]) == known.model[key]
    mean = sum(head["density"] for head in known.model["heads"]) / 4
    assert mean == pytest.approx(known.model["density"])
    widths = forecast(lower(load(shipped()["step_35_flash"])), 4096)  # 96 heads in some layers, 64 in others
    assert len(widths.model["heads"]) == 96 and widths.model["heads"][95]["density"] < 0.5


def test_values_of_another_width():
    """A token's K and V, and each product along its own width."""
    alike = s2("g")
    wide = replace(alike, v_head_dim=3 * alike.head_dim)
    assert wide.head_dim == alike.head_dim == alike.v_head_dim == 64
    one, other = forecast(alike, 4096).model, forecast(wide, 4096).model
    for (key, number), of_wide in zip(one.items(), other.items(), strict=True):
        if key in ("heads", "kv_heads"):
            continue
        times = 1
        if key.startswith(("kv_bytes", "exchange_bytes")) or key == "flops_forward":
            times = 2  # 64 + 192 numbers for 64 + 64
        elif key == "flops_backward":
            times = 1.8  # 3 products along 64, 2 along 192, for 5 along 64
        assert of_wide == (key, pytest.approx(times * number)), key
    assert [x["kv_bytes_kept"] for x in other["kv_heads"]] == [2 * x["kv_bytes_kept"] for x in one["kv_heads"]]
    assert price(wide, 4096).kv_bytes == forecast(wide, 4096).model["kv_bytes_kept"]


def test_dense_is_dense():
    dense = classes_of([[Layout.parse("all")] * 2], block=16, causal=True, kv_heads=1)
    model = forecast(dense, 1000).model
    assert model["density"] == model["speedup"] == 1
    assert model["kv_bytes_kept"] == model["kv_bytes_peak"] == model["kv_bytes_read"] == model["kv_bytes_dense"]
    assert model["exchange_bytes"] == model["exchange_bytes_dense"]
    assert model["imbalance"] == 1


def test_nothing_kept_has_figures_too():
    nothing = classes_of([[Layout()]], block=16, causal=True, kv_heads=1)
    model = forecast(nothing, 100).model
    assert (model["density"], model["speedup"], model["kv_bytes_kept"], model["imbalance"]) == (0, None, 0, 1)


@pytest.mark.parametrize("length", [1_000_000, 10_000_000])
def test_long_forecasts_do_not_take_longer(length: int):
    classes = s2("h", layers=4)
    start = time.process_time()
    model = forecast(classes, length).model
    assert time.process_time() - start < 5, "milliseconds are the aim; a busy machine is allowed for"
    assert model["density"] == pytest.approx(1 / 16, rel=0.05)
    assert model["kv_live_forever"] == pytest.approx(1 / 4, rel=0.001)


def test_a_forecast_needs_a_token():
    with pytest.raises(ValueError, match="at least one token"):
        forecast(s2("g"), 0)


def test_csv_has_a_line_a_layer_class_and_the_model():
    lines = list(csv.DictReader(io.StringIO(forecast(s2("g"), 4096).to_csv())))
    assert [line["layers"] for line in lines] == ["0", "model"]
    assert float(lines[0]["density"]) == forecast(s2("g"), 4096).model["density"]


def test_balance():
    heads = [Layout.parse("all")] + [Layout.parse("d<1")] * 3
    classes = classes_of([heads], block=64, causal=True, kv_heads=4)
    verdict = balance(classes, limit=2.0, length=6400)[0]
    whole, one = 6400 * 6401 // 2, 100 * 64 * 65 // 2
    assert verdict.value == pytest.approx(whole / ((whole + 3 * one) / 4), abs=1e-6)
    assert verdict.holds is False and verdict.heads == (0,)
    assert balance(classes, limit=4.0, length=6400)[0].holds is True


def test_heaviest_first_is_even():
    falling = Weights(np.arange(1, 101), np.arange(1, 101))
    assert busiest([falling] * 4, 100, 8) < 1.02
    assert busiest([Weights(np.array([1]), np.array([10]))], 1, 4) == 4
