"""What other libraries say, read into this language: equal to its source by masks that are written down here again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from patterncc.advice.shapes import read_model
from patterncc.cli.run import run
from patterncc.errors import UsageError
from patterncc.formats.importing import import_pattern, write
from patterncc.formats.infer import infer
from patterncc.formats.rules import Shape, to_yaml
from patterncc.language import Pattern, load, loads
from patterncc.language.shape import Shape as Sizes
from patterncc.reference import keeps


def mask_of(pattern: Pattern, length: int, layer: int = 0) -> np.ndarray:
    """[heads, length, length] by the definition, causality included."""
    t = np.arange(length)
    return np.stack([keeps(pattern, layer, head, t, t) for head in range(pattern.heads)])


def read(tmp_path: Path, document: object, **options: object) -> Pattern:
    source, target = tmp_path / "source.json", tmp_path / "target.yaml"
    source.write_text(json.dumps(document))
    write(import_pattern(str(source), **options), target)  # type: ignore[arg-type]
    return load(target)


CONFIG = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 256, "num_hidden_layers": 6}
NARROW = {"head_dim": 64}  # some classes have wider heads where the configuration says nothing


@pytest.mark.parametrize(
    ("model", "windows"),
    [
        ({"model_type": "llama"}, [None] * 6),
        ({"model_type": "mistral", "sliding_window": 40}, [40] * 6),
        ({"model_type": "mistral", "sliding_window": None}, [None] * 6),
        ({"model_type": "new", "layer_types": ["sliding_attention", "full_attention"] * 3, "sliding_window": 9},
         [9, None] * 3),
        (NARROW | {"model_type": "gemma3_text", "sliding_window": 20}, [20] * 5 + [None]),
        ({"model_type": "cohere2", "sliding_window": 20}, [20, 20, 20, None, 20, 20]),
        (NARROW | {"model_type": "qwen3", "sliding_window": 8, "use_sliding_window": True, "max_window_layers": 4},
         [None] * 4 + [8, 8]),
        (NARROW | {"model_type": "qwen3", "sliding_window": 8, "use_sliding_window": False}, [None] * 6),
    ],
)  # fmt: skip
def test_causal_configurations(tmp_path: Path, model: dict, windows: list[int | None]) -> None:
    pattern = read(tmp_path, CONFIG | model)
    assert (pattern.heads, pattern.kv_heads, pattern.head_dim, pattern.layers) == (4, 2, 64, 6)
    t = np.arange(75)
    distance = t[:, None] - t
    for layer, window in enumerate(windows):
        expected = (distance >= 0) & (distance < (window or 75))
        assert (mask_of(pattern, 75, layer) == expected).all(), layer


@pytest.mark.parametrize(("window", "far"), [(8, 4), (7, 3)])
def test_longformer_has_half_a_window_on_each_side(tmp_path: Path, window: int, far: int) -> None:
    pattern = read(tmp_path, CONFIG | {"model_type": "longformer", "attention_window": [window] * 6})
    t = np.arange(61)
    assert (mask_of(pattern, 61) == (abs(t[:, None] - t) <= far)).all()


def test_widths_of_values_are_read(tmp_path: Path) -> None:
    pattern = read(tmp_path, CONFIG | {"model_type": "mimo_v2", "head_dim": 192, "v_head_dim": 128})
    assert (pattern.head_dim, pattern.v_head_dim) == (192, 128)
    parts = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 96, "head_dim": 64}
    latent = read(tmp_path, CONFIG | {"model_type": "deepseek_v3"} | parts)
    assert (latent.head_dim, latent.v_head_dim) == (192, 96)
    assert "v_head_dim" not in read(tmp_path, CONFIG | {"model_type": "llama"}).source


def test_caps_and_sinks_are_read(tmp_path: Path) -> None:
    gemma = read(tmp_path, CONFIG | {"model_type": "gemma2", "sliding_window": 32, "attn_logit_softcapping": 50.0})
    assert gemma.softcap == 50 and gemma.shard(0, 0).local_tokens == (32, 1) and gemma.shard(1, 0).dense
    assert read(tmp_path, CONFIG | {"model_type": "gpt_oss", "sliding_window": 32}).sinks == "learned"
    llama4 = CONFIG | {"model_type": "llama4_text", "attention_chunk_size": 8192}
    assert [read(tmp_path, llama4).shard(layer, 0).dense for layer in range(4)] == [False, False, False, True]


def test_scales_are_read(tmp_path: Path) -> None:
    def scale(**said: object) -> float | None:
        return read(tmp_path, CONFIG | {"sliding_window": 32} | said).scale

    assert scale(model_type="gemma2", query_pre_attn_scalar=144) == 144**-0.5
    assert scale(model_type="gemma3_text", head_dim=64) == 1 / 16  # 256 where the configuration says nothing
    assert scale(model_type="gemma3_text") is None  # head_dim is 256 there too: the pattern's own default
    assert scale(model_type="gemma2", query_pre_attn_scalar=64, head_dim=64) is None
    assert scale(model_type="granite", attention_multiplier=0.0078125) == 0.0078125
    assert scale(model_type="llama") is None
    for wrong in (0, True, "x", -1, float("inf")):
        with pytest.raises(UsageError, match=r"`query_pre_attn_scalar` is .*; expected a positive number"):
            scale(model_type="gemma2", query_pre_attn_scalar=wrong)


def test_what_a_configuration_leaves_out_is_what_its_class_takes(tmp_path: Path) -> None:
    """A file that states no widths, nested in a larger one: transformers takes heads of 256 for Gemma 3."""
    text = {"num_attention_heads": 8, "num_hidden_layers": 6, "hidden_size": 2560}
    pattern = read(tmp_path, {"model_type": "gemma3", "text_config": text})
    assert (pattern.kv_heads, pattern.head_dim, pattern.shard(0, 0).local_tokens) == (4, 256, (4096, 1))
    mistral = read(tmp_path, {"model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 2})
    assert (mistral.kv_heads, mistral.head_dim, mistral.shard(0, 0).local_tokens) == (8, 128, (4096, 1))
    other = read(tmp_path, {"model_type": "mistral", "num_attention_heads": 4, "num_hidden_layers": 2})
    assert (other.kv_heads, other.head_dim) == (4, 128)  # its 8 KV heads and its hidden_size are those of 32 heads


THREE = ["full_attention", *["sliding_attention"] * 3] * 2


@pytest.mark.parametrize(
    ("kind", "said", "shapes", "window"),
    [
        (
            "laguna",
            {"layer_types": THREE, "num_attention_heads_per_layer": [4, 6, 6, 6] * 2},
            [Sizes(4, 2, 16), *[Sizes(6, 2, 16)] * 3] * 2,
            40,
        ),
        (
            "step3p5",
            {"layer_types": [*THREE, "full_attention"], "attention_other_setting": {"num_attention_heads": 6}},
            [Sizes(4, 2, 16), *[Sizes(6, 2, 16)] * 3] * 2,
            40,
        ),
        (
            "gemma4_text",
            {"global_head_dim": 32, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
            [*[Sizes(4, 2, 16)] * 5, Sizes(4, 1, 32), Sizes(4, 2, 16), Sizes(4, 1, 32)],
            40,
        ),
        (
            "mimo_v2_flash",
            {"head_dim": 24, "v_head_dim": 16, "sliding_window_size": 40},
            [Sizes(4, 2, 24, 16), *[Sizes(4, 4, 24, 16, True)] * 4, Sizes(4, 2, 24, 16)]
            + [Sizes(4, 4, 24, 16, True)] * 2,
            41,
        ),
    ],
)
def test_sizes_of_single_layers_are_read(
    tmp_path: Path, kind: str, said: dict, shapes: list[Sizes], window: int
) -> None:
    config = {"num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config |= {"hidden_size": 64, "sliding_window": 40, "model_type": kind} | said
    (tmp_path / "config.json").write_text(json.dumps(config))
    pattern = loads(import_pattern(str(tmp_path / "config.json"), name="sized").yaml)
    assert list(pattern.shapes) == shapes
    kept = [shard.local_tokens for shard in (pattern.shard(layer, 0) for layer in range(8)) if not shard.dense]
    assert set(kept) == {(window, 1)}


def test_what_is_not_static_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="layer 1 is `linear_attention`, which is no static pattern"):
        read(tmp_path, CONFIG | {"layer_types": ["full_attention", "linear_attention"] * 3})


def deepspeed(section: dict, rows: int, causal: bool) -> np.ndarray:
    """The layout of blocks that DeepSpeed's documentation describes, for whole windows and without random blocks."""
    i, j = np.arange(rows)[:, None], np.arange(rows)[None]
    mode = section["mode"]
    if mode == "fixed":
        n, g = section.get("num_local_blocks", 4), section.get("num_global_blocks", 1)
        kept = (i // n == j // n) | ((j % n >= n - g) & (j % n < n))
    elif mode == "variable":
        n = section["local_window_blocks"][0]
        kept = (i // n == j // n) | (j == 0)
    else:
        reach = section.get("num_sliding_window_blocks", 3) // 2
        kept = (abs(i - j) <= reach) | (j == 0) | ((i == 0) & (not causal))
    return kept & (i >= j) if causal else kept


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "section",
    [
        {"mode": "bslongformer", "num_sliding_window_blocks": 5},
        {"mode": "fixed", "num_local_blocks": 4, "num_global_blocks": 2},
        {"mode": "variable", "local_window_blocks": [3]},
        {"mode": "bigbird", "num_random_blocks": 0},
    ],
)
def test_deepspeed_modes(tmp_path: Path, section: dict, causal: bool) -> None:
    section = section | {"block": 16, "attention": "unidirectional" if causal else "bidirectional"}
    if section["mode"] == "bigbird":
        section.pop("num_random_blocks")
        section["num_random_blocks"] = 1
        source = tmp_path / "d.json"
        source.write_text(json.dumps({"sparse_attention": section}))
        imported = import_pattern(str(source), length=192)
        (file, drawn), *_ = imported.masks.items()
        assert (drawn.sum(1) == 1).all() and not (causal and np.triu(drawn, 1).any())
        write(imported, tmp_path / "d.yaml")
        expected = deepspeed(section, 12, causal) | drawn
        pattern = load(tmp_path / "d.yaml")
        assert file.endswith("_random.npy")
    else:
        pattern = read(tmp_path, {"sparse_attention": section})
        expected = deepspeed(section, 12, causal)
    tokens = expected.repeat(16, 0).repeat(16, 1)
    assert (mask_of(pattern, 192) == (np.tril(tokens) if causal else tokens)).all()


def test_deepspeeds_global_rows_are_global_below_the_diagonal_too(tmp_path: Path) -> None:
    section = {"mode": "bslongformer", "attention": "unidirectional", "global_block_indices": [5], "block": 16}
    pattern = read(tmp_path, {"sparse_attention": section})
    assert mask_of(pattern, 128)[0, 5 * 16 + 3, : 5 * 16 + 4].all()
    assert not mask_of(pattern, 128)[0, 7 * 16, 0]


SHARDS = [
    "dense: true",
    "local: 3",
    "local: 20 tokens",
    "{local: 3, sink: 1}",
    "{local: 2, stride: 4, offset: h}",
    "{local: 40 tokens, stride: 4, offset: h, sink: 3 tokens}",
    "{local: 2, sink: 2, stride: 4, offset: 3, width: 2}",
    "{local: 1, strides: [{every: 3, anchor: query}]}",
    "{local: 1, globals: {columns: [0, 3, 5]}}",
]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shard", SHARDS)
def test_rules_are_found_again(shard: str, causal: bool) -> None:
    """Equal over the sample, and beyond it: the rule was found, not the sample copied."""
    body = shard.strip("{}") if not shard.startswith("{") else shard[1:-1]
    head = f"pattern: 1\nname: x\nheads: 4\nblock: 16\ncausal: {str(causal).lower()}\npromises: {{}}\n"
    pattern = loads(f"{head}shards: [{{heads: all, {body}}}]\n")
    mask = mask_of(pattern, 14 * 16 + 5)
    found = infer(mask)
    assert found is not None and found.explained
    again = loads(to_yaml(Shape("y", "", 4, 4, 128, 1, found.block, found.causal), [found.rules]))
    assert (mask_of(again, 500) == mask_of(pattern, 500)).all()


def test_what_no_rule_explains_stays_a_mask(tmp_path: Path) -> None:
    kept = np.tril(np.random.default_rng(3).random((2, 9, 9)) < 0.5)
    np.save(tmp_path / "drawn.npy", kept)
    imported = import_pattern(str(tmp_path / "drawn.npy"), block=32)
    write(imported, tmp_path / "drawn_pattern.yaml")
    pattern = load(tmp_path / "drawn_pattern.yaml")
    assert pattern.block == 32 and any("no rule explains" in note for note in imported.notes)
    assert (mask_of(pattern, 288) == np.tril(kept.repeat(32, 1).repeat(32, 2))).all()


def test_a_mask_that_could_be_either_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t = np.arange(256)
    np.save(tmp_path / "window.npy", (t[:, None] >= t) & (t[:, None] - t < 10))
    assert run(["import", str(tmp_path / "window.npy")]) == 2
    assert "--level token" in capsys.readouterr().err
    for level, key in (("token", "local_tokens"), ("block", "local")):
        assert run(["import", str(tmp_path / "window.npy"), "--level", level, "-o", str(tmp_path / "w.yaml")]) == 0
        reach = getattr(load(tmp_path / "w.yaml").shard(0, 0), key)
        assert reach is not None and reach[0] == 10


def test_a_token_mask_is_told_from_a_block_mask(tmp_path: Path) -> None:
    pattern = loads(
        "pattern: 1\nname: x\nheads: 2\nblock: 16\nshards: [{heads: all, local: 1, stride: 4, offset: h}]\n"
    )
    np.save(tmp_path / "tokens.npy", mask_of(pattern, 256))
    imported = import_pattern(str(tmp_path / "tokens.npy"))
    assert (mask_of(loads(imported.yaml), 320) == mask_of(pattern, 320)).all()
    assert any("mask of tokens" in note for note in imported.notes)


MODULE = """
def strided(b, h, q, k):
    return (q >= k) & ((q // 64 - k // 64 < 4) | (k // 64 % 4 == h))

def changes(b, h, q, k):
    return (q >= k) & ((q - k < 100) | (q > 1500))
"""


def test_mask_mods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "masks_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    imported = import_pattern("masks_of_mine:strided", heads=4)
    pattern = loads(imported.yaml)
    assert (pattern.shard(0, 2).strides[0].every, pattern.shard(0, 2).strides[0].offset) == (4, 2)
    with pytest.raises(UsageError, match="what holds for 1,024 tokens fails at query"):
        import_pattern("masks_of_mine:changes")
    with pytest.raises(UsageError, match="cannot be imported"):
        import_pattern("masks_of_mine:nothing")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "this is not JSON"),
        ("a.json", "[" * 100_000, "nested too deeply|not JSON"),
        ("a.json", "3", "holds no object"),
        ("a.json", "{}", "does not say `num_hidden_layers`"),
        ("a.json", '{"sparse_attention": {"mode": "fixd"}}', "did you mean fixed"),
        ("a.json", '{"sparse_attention": 3}', "is no object"),
        ("a.json", '{"sparse_attention": {"mode": "variable", "local_window_blocks": [2, 4]}}', "different sizes"),
        ("a.tsv", "1 2\n3\n", "line 2 has 1 number;"),
        ("a.tsv", "x", "expected a number for each KV head"),
        ("a.npy", "junk", "cannot be read as a mask"),
        ("a.json", '[{"0": ["vertical_and_slash", 1, 2, 0.1]}]', "depend on the data"),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str) -> None:
    import re

    (tmp_path / name).write_text(text)
    assert run(["import", str(tmp_path / name)]) == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "place", "marked"),
    [
        ('{"model_type": "llama",\n\t"num_attention_heads": -3}', "2:25", "-3"),
        ('{"num_hidden_layers": 2, "num_attention_heads": 4.5}', "1:49", "4.5"),
        (  # of the section that is read
            '{"vision_config": {"num_attention_heads": 4}, "model_type": "gemma3",\r\n'
            '"text_config": {"num_attention_heads": "é"}}',
            "2:40",
            '"é"',
        ),
        (  # where the file itself has heads, no section is read
            '{"text_config": {"head_dim": 0}, "num_attention_heads": 4, "head_dim": -1, "num_hidden_layers": 1}',
            "1:72",
            "-1",
        ),
        ('\ufeff{"num_hidden_layers": 1, "num_hidden_layers": 0}', "1:47", "0"),  # the last one counts
        ('{"model_type": "llama", "layer_types": ["full_attention", "ssm"], "num_hidden_layers": 2}', "1:59", '"ssm"'),
        ('{"sparse_attention": {"mode": "fixed",\n "block": 17}}', "2:11", "17"),
        ('[{"0": ["stream_llm", 1, 2, 0]},\n {"0": ["slash", 1, 2, 0]}]', "2:9", '"slash"'),
        ('{"a": 1,}', "1:9", "}"),
    ],
)
def test_a_wrong_value_is_shown_in_its_file(tmp_path: Path, text: str, place: str, marked: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode())
    with pytest.raises(UsageError) as caught:
        import_pattern(str(path))
    only = caught.value.diagnostics[0]
    assert str(caught.value).startswith(f"{path}:{place}: ")
    assert only.span and only.source_line and only.source_line[only.span.column - 1 : only.span.end - 1] == marked


@pytest.mark.parametrize("command", ["import config.json", "suggest --model . -n 1k", "forecast demo --model . -n 1k"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"num_hidden_layers": 2}', "config.json: the file does not say `num_attention_heads`\n  help: it needs"),
        ("[]", "config.json: the file "),
        (
            '{"num_hidden_layers": 0, "num_attention_heads": 4}',
            "config.json:1:23: `num_hidden_layers` is `0`; expected a whole number from 1",
        ),
        ('{"num_hidden_layers": ' + "1" * 5000 + "}", "config.json: this is not JSON as configurations have it"),
    ],
)
def test_every_command_names_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    text: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(text)
    assert run(command.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("read", [lambda path: import_pattern(str(path)), read_model])
def test_both_readers_of_a_configuration_name_the_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "mimo_v2_flash", "num_attention_heads": 4, "num_hidden_layers": 2}')
    with pytest.raises(UsageError, match="cannot be said: kv_heads 8 must divide heads, 4") as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_layers_without_rotation_are_a_list(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "llama4_text", "num_hidden_layers": 2,\n"no_rope_layers": -1}')
    with pytest.raises(UsageError, match=r"config\.json:2:19: `no_rope_layers` is `-1`; expected a list"):
        import_pattern(str(path))


def test_what_a_file_means_and_cannot_be_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"num_hidden_layers": 1, "num_attention_heads": 17, "num_key_value_heads": 4}')
    with pytest.raises(UsageError) as caught:
        import_pattern(str(path))
    said = "the source means a pattern that cannot be said: kv_heads 4 must divide heads, 17\n  help: did you mean 1?"
    assert str(caught.value) == f"{path}: {said}"


def test_a_line_of_gates_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("0.5 1\n0.5 x\n")
    with pytest.raises(UsageError, match=r"a\.tsv:2:1: line 2 is `0\.5 x`; expected a number"):
        import_pattern(str(tmp_path / "a.tsv"))


def test_the_command_writes_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"model_type": "mistral", "sliding_window": 64}))
    assert run(["import", str(tmp_path), "--name", "mine", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == "mine" and document["exact"] and "local: 64 tokens" in document["yaml"]
    assert loads(document["yaml"]).name == "mine"
