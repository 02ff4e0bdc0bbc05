"""`patterncc forecast`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patterncc.cli import run
from tests.cli.shell import Shell


def test_forecast(patterncc: Shell) -> None:
    document = patterncc.json("forecast", "phi3_small", "--length", 131072)
    assert (document["name"], document["length"]) == ("phi3_small", 131072)
    assert {"layers", "density", "kv_bytes_dense", "kv_bytes_kept"} <= set(document["layers"][0]) & set(
        document["model"]
    )
    assert set(document["layers"][0]) == set(document["model"])
    assert "kept token pairs" in patterncc("forecast", "phi3_small", "-n", "128k")
    lines = patterncc("forecast", "phi3_small", "-n", "128k", "--csv").splitlines()
    assert lines[0].startswith("layers,density,") and lines[-1].startswith("model,") and len(lines) == 4


@pytest.mark.parametrize("name", ["bigbird", "longformer", "bert_local"])
def test_a_forecast_that_would_take_all_memory_is_refused(patterncc: Shell, name: str) -> None:
    assert patterncc("forecast", name, "-n", 2**31 - 1, code=2) == ""
    assert "block rows would have to be counted one by one" in patterncc.err and "shorter length" in patterncc.err
    patterncc("forecast", "phi3_small", "-n", 2**31 - 1)


def test_a_forecast_of_a_model_compares_layer_by_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Laguna's configuration against its pattern, with one layer's heads changed, and for `suggest`."""
    config = {"model_type": "laguna", "num_hidden_layers": 40, "num_attention_heads": 48, "num_key_value_heads": 8}
    config |= {"head_dim": 128, "hidden_size": 2048, "sliding_window": 512}
    config["layer_types"] = ["sliding_attention" if n % 4 else "full_attention" for n in range(40)]
    config["num_attention_heads_per_layer"] = [64 if n % 4 else 48 for n in range(40)]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    assert run.run(["forecast", "laguna_xs", "--length", "4k", "--model", str(file)]) == 0
    config["num_attention_heads_per_layer"][7] = 72
    file.write_text(json.dumps(config))
    capsys.readouterr()
    assert run.run(["forecast", "laguna_xs", "--length", "4k", "--model", str(file)]) == 2
    assert "the model has 72 heads, the pattern laguna_xs has 64 in layer 7" in capsys.readouterr().err
    assert run.run(["suggest", "--model", str(file), "--length", "4k"]) == 2
    assert "layers differ in heads or widths" in capsys.readouterr().err
