"""Suggestions: every candidate compiles to what it says, is proved, and costs what the forecast says."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from patterncc.advice.requests import Fit, fit, memory
from patterncc.advice.shapes import ModelShape, read_model
from patterncc.advice.suggest import MOST, Wish, suggest
from patterncc.analysis.costs.forecast import forecast
from patterncc.analysis.verify import prove
from patterncc.cli.run import run
from patterncc.errors import UsageError
from patterncc.language import load, loads
from patterncc.passes import lower

CONFIGS = Path(__file__).parent.parent.parent / "examples" / "configs"
SMALL = ModelShape(8, 4, 64, 6)


@pytest.mark.parametrize("coverage", ["layer", "model", None])
def test_candidates_are_proved_and_priced(coverage: str | None) -> None:
    found, _ = suggest(SMALL, Wish(20_000, coverage=coverage))
    assert 2 <= len(found) <= MOST and sum(one.recommended for one in found) == 1
    for one in found:
        pattern = loads(one.yaml)
        classes = lower(pattern)
        for property, scope in (("coverage", one.member.coverage), ("rows", "head"), ("kv", "head")):
            assert all(verdict.holds is True for verdict in prove(classes, property, scope))
        known = forecast(classes, 20_000).model
        assert (one.kv_bytes, one.exchange_bytes) == (known["kv_bytes_kept"], known["exchange_bytes"])
        assert one.density == pytest.approx(known["density"])
        assert one.kv_bytes <= one.kv_bytes_paged <= SMALL.kv_bytes(20_016)
        assert one.balance >= 1
    assert [one.kv_bytes for one in found] == sorted(one.kv_bytes for one in found)


def test_a_budget_is_kept() -> None:
    free, _ = suggest(SMALL, Wish(20_000))
    budget = 3 * free[len(free) // 2].kv_bytes
    found, _ = suggest(SMALL, Wish(20_000, kv_budget=budget, batch=3))
    (chosen,) = [one for one in found if one.recommended]
    assert 3 * chosen.kv_bytes <= budget and "fit" in chosen.why
    none, _ = suggest(SMALL, Wish(20_000, kv_budget=1000))
    assert not any(one.recommended for one in none)


def test_an_8b_model_turns_with_the_layers() -> None:
    """Known: `offset: g + 8 * (l % 2)` with stride 16 keeps 1.12 GiB of 16 at 128k, and covers by model."""
    shape = read_model(CONFIGS / "llama_3_8b_like.json")
    found, _ = suggest(shape, Wish(131_072, kv_budget=8 * 2**30, batch=4))
    (chosen,) = [one for one in found if one.recommended]
    assert "(g + 8 * (l % 2)) % 16" in chosen.yaml and chosen.member.coverage == "model"
    assert round(chosen.kv_bytes / 2**30, 2) == 1.12


def test_weights_of_a_configuration() -> None:
    """Llama-3-8B has 8.03 billion weights, Qwen3-32B 32.8 billion (their model cards)."""
    assert read_model(CONFIGS / "llama_3_8b_like.json").weights == pytest.approx(8.03e9, rel=0.01)
    assert read_model(CONFIGS / "qwen3_32b_like.json").weights == pytest.approx(32.8e9, rel=0.01)


def config(tmp_path: Path, **more: object) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 6} | more))
    return file


def test_widths_of_heads_and_values(tmp_path: Path) -> None:
    """MiMo-V2 states both; DeepSeek-V3 the parts of a head, of 671 billion weights in all (its model card): here one
    layer's attention, 187.1 million (2412.19437, section 4.2: hidden 7168, ranks 1536 and 512, 128 heads)."""
    mimo = read_model(config(tmp_path, head_dim=192, v_head_dim=128))
    assert (mimo.head_dim, mimo.v_head_dim, mimo.kv_bytes(10)) == (192, 128, 10 * 6 * 4 * 320 * 2)
    found, _ = suggest(mimo, Wish(20_000))
    pattern = loads(found[0].yaml)
    assert (pattern.head_dim, pattern.v_head_dim) == (192, 128)
    assert all(one.kv_bytes <= one.kv_bytes_paged <= mimo.kv_bytes(20_016) for one in found)
    latent = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "head_dim": 64, "hidden_size": 7168}
    ranks = {"q_lora_rank": 1536, "kv_lora_rank": 512, "num_attention_heads": 128, "num_key_value_heads": 128}
    sizes = {"num_hidden_layers": 1, "intermediate_size": 1, "vocab_size": 1}
    shape = read_model(config(tmp_path, **latent, **ranks, **sizes))
    assert (shape.head_dim, shape.v_head_dim) == (192, 128)
    rest = 3 * 7168 + 2 * 7168 + 3 * 7168  # a gated MLP of one number, two norms, one word twice and the last norm
    assert shape.weights is not None and shape.weights - rest == pytest.approx(187.1e6, rel=1e-3)


def test_requests_on_a_card() -> None:
    assert fit(80, 16, 5, 20) == Fit(80, 16, 12, 3)
    assert fit(10, 16, 5, 20).kept is None
    assert memory("80 GB", "--memory") == 80 * 10**9
    for wrong in ("", "8 GiB GiB", "-1", "1e99", "8" * 30, "GiB"):
        with pytest.raises(UsageError, match="--memory is"):
            memory(wrong, "--memory")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, plot = tmp_path / "mine.yaml", tmp_path / "front.svg"
    shape = ["--heads", "8", "--kv-heads", "4", "--layers", "6", "--length", "20000"]
    assert run(["suggest", *shape, "--json", "-o", str(file), "--plot", str(plot), "--arch", "sm_90"]) == 0
    candidates = json.loads(capsys.readouterr().out)["candidates"]
    keys = {"yaml", "kv_bytes", "kv_bytes_paged", "density", "coverage", "balance", "recommended", "why"}
    assert all(keys <= set(one) for one in candidates)
    (chosen,) = [one for one in candidates if one["recommended"]]
    assert load(file).source == chosen["yaml"] and chosen["seconds_forward"] > 0
    drawn = ElementTree.fromstring(plot.read_text())
    width, height = (float(drawn.attrib[side]) for side in ("width", "height"))
    circles = list(drawn.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == len(candidates)
    places = [(float(circle.attrib["cx"]), -float(circle.attrib["cy"])) for circle in circles]
    costs = [(one["kv_bytes"], one["density"]) for one in candidates]
    for axis in (0, 1):  # further right is more bytes, further up is more work
        order = sorted(range(len(costs)), key=lambda k: costs[k][axis])
        assert [places[k][axis] for k in order] == sorted(place[axis] for place in places)
    for text in drawn.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 < float(text.attrib["x"]) < width and 0 < float(text.attrib["y"]) < height, text.text
    assert run(["suggest", *shape, "--kv-budget", "1kB"]) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--model config.json, or --heads and --layers"),
        (["--heads", "8", "--kv-heads", "3", "--layers", "2"], "cannot share 3 KV heads"),
        (["--heads", "8", "--layers", "2", "--density", "2"], "--density is `2`"),
        (["--heads", "8", "--layers", "2", "--coverage", "head"], "--coverage is `head`"),
        (["--heads", "8", "--layers", "2", "--kv-budget", "lots"], "--kv-budget is `lots`"),
        (["--heads", "8", "--layers", "2", "--dense-layers", "2"], "--dense-layers is 2"),
        (["--heads", "8", "--layers", "2", "--plot", "x.bmp"], "it writes .svg"),
        (["--model", "nowhere.json"], "there is no file"),
        (["--heads", "1", "--layers", "1", "--coverage", "layer"], "cover the context by layer"),
    ],
)
def test_mistakes(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["suggest", "--length", "4096", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_forecast_says_how_many_requests_fit(capsys: pytest.CaptureFixture[str]) -> None:
    model = str(CONFIGS / "llama_3_8b_like.json")
    options = ["--length", "131072", "--model", model, "--memory", "80GiB", "--batch", "4"]
    assert run(["forecast", "phi3_small", *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    request = document["request"]
    assert request["batch"] == 4 and request["fits"] > request["fits_dense"] == 4
    assert request["kv_bytes_kept"] == 4 * document["model"]["kv_bytes_kept"]
    assert run(["forecast", "phi3_small", *options]) == 0
    assert "; dense fits 4" in capsys.readouterr().out
    assert run(["forecast", "demo", "--length", "4096", "--model", model]) == 2
    assert "32 heads, the pattern demo" in capsys.readouterr().err
