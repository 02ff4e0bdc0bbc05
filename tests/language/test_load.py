"""What a file means: defaults, the numbers of each shard, layers, promises, masks."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from patterncc import language
from patterncc.errors import PatternError
from tests.language.loaded import HEAD, refusal


def shard(body: str, head: int = 0, layer: int = 0, top: str = "", folder: Path | None = None) -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return repr(language.loads(HEAD + top + "shards:\n  - heads: all\n" + lines, folder=folder).shard(layer, head))


def strides(*parts: str) -> str:
    texts = [f"ResolvedStride({part})" for part in parts]
    return f"strides=({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def stride(
    every: int, offset: int = 0, width: int = 1, anchor: str = "key", low: int = 0, high: int | None = None
) -> str:
    numbers = f"every={every}, offset={offset}, width={width}, anchor={anchor!r}"
    return f"{numbers}, distance_from={low}, distance_to={high}"


def test_defaults() -> None:
    pattern = language.loads("pattern: 1\nname: demo\nheads: 8\nblock: 64\nshards: [{heads: all, local: 1}]")
    assert (pattern.kv_heads, pattern.head_dim, pattern.layers, pattern.causal, pattern.about) == (8, 128, 1, True, "")
    assert pattern.promises is None and pattern.group == 1 and pattern.v_head_dim == 128
    assert pattern.file == "<text>" and pattern.source.startswith("pattern: 1")


def test_values_are_as_wide_as_heads_unless_said() -> None:
    text = "pattern: 1\nname: demo\nheads: 8\nhead_dim: 192\n{}block: 64\nshards: [{{heads: all, local: 1}}]"
    assert language.loads(text.format("")).v_head_dim == 192
    assert language.loads(text.format("v_head_dim: 128\n")).v_head_dim == 128


@pytest.mark.parametrize(
    ("body", "resolved"),
    [
        ("dense: true", "dense=True"),
        ("local: 16", "local=(16, 1)"),
        ("local: h + 1", "local=(6, 1)"),
        ("local: 1024 tokens", "local_tokens=(1024, 1)"),
        ("local: 1 token", "local_tokens=(1, 1)"),
        ('local: "64 * (g + 1) tokens"', "local_tokens=(128, 1)"),
        ('local: "3"', "local=(3, 1)"),
        ("stride: 16", strides(stride(16))),
        ("stride: 16\noffset: g", strides(stride(16, 1))),
        ("stride: 4\noffset: h", strides(stride(4, 1))),
        ("stride: 4\noffset: -h", strides(stride(4, 3))),
        ("stride: 4\noffset: [0, 2, 3]", strides(stride(4, 3))),
        ("stride: 4\noffset: [h, l]\nwidth: 2", strides(stride(4, 0, 2))),
        ("strides: [{every: 4, anchor: query, from: 2, to: 9}]", strides(stride(4, 0, 1, "query", 2, 9))),
        ("stride: 4\nstrides: [{every: 3, offset: 1}]", strides(stride(4), stride(3, 1))),
        ("sink: 2", "sink=2"),
        ("sink: 4 tokens", "sink_tokens=4"),
        ("globals: {rows: [3, 1-2, h, 1], columns: [0]}", "global_rows=(1, 2, 3, 5), global_columns=(0,)"),
        ("random: {blocks: 3}", "random=(3, 0)"),
        ("random: {blocks: 3, seed: h * 10}", "random=(3, 50)"),
    ],
)
def test_numbers_of_head_5(body: str, resolved: str) -> None:
    assert shard(body, head=5, top="layers: 2\n") == f"Resolved({resolved})"


@pytest.mark.parametrize(
    ("body", "resolved"),
    [
        ("local: 4", "local=(4, 4)"),
        ("local: 9 tokens", "local_tokens=(9, 9)"),
        ("local: {before: 4, after: 2}", "local=(4, 2)"),
        ("local: {before: 4}", "local=(4, 1)"),
        ("local: {after: 5 tokens}", "local_tokens=(1, 5)"),
        ("local: {before: 4, after: 5 tokens}", "local=(4, 1), local_tokens=(1, 5)"),
    ],
)
def test_windows_to_both_sides(body: str, resolved: str) -> None:
    assert shard(body, top="causal: false\n") == f"Resolved({resolved})"


def test_offsets_cycle_over_the_heads_of_their_entry_in_the_order_written() -> None:
    pattern = language.loads(
        HEAD + "shards:\n  - {heads: [6, 1, 3], stride: 8, offset: [5, 7]}\n  - {heads: rest, dense: true}\n"
    )
    assert [pattern.shard(0, head).strides[0].offset for head in (6, 1, 3)] == [5, 7, 5]


def test_layers() -> None:
    text = HEAD + (
        "layers: 8\nshards: [{heads: all, local: l + 1}]\ndense_layers: 0, 7\n"
        "layouts:\n  - {layers: '2::2', shards: [{heads: all, sink: 1}]}\n"
    )
    pattern = language.loads(text)
    assert [str(pattern.shard(layer, 0)) for layer in range(8)] == [
        "Resolved(dense=True)", "Resolved(local=(2, 1))", "Resolved(sink=1)", "Resolved(local=(4, 1))",
        "Resolved(sink=1)", "Resolved(local=(6, 1))", "Resolved(sink=1)", "Resolved(dense=True)",
    ]  # fmt: skip
    with pytest.raises(IndexError):
        pattern.shard(8, 0)


def test_equal_heads_share_one_object() -> None:
    pattern = language.loads(HEAD + "layers: 4\nshards: [{heads: all, stride: 4, offset: g}]")
    assert len({id(pattern.shard(layer, head)) for layer in range(4) for head in range(8)}) == 2


def test_shards_of_a_layer_are_those_of_its_heads() -> None:
    entries = "[{heads: 0-3, local: l + 1}, {heads: rest, stride: 4, offset: g}]"
    layouts = "[{layers: 3-4, shards: [{heads: all, sink: 1}]}]"
    text = HEAD + f"layers: 5\nshards: {entries}\nlayouts: {layouts}\ndense_layers: 0"
    pattern = language.loads(text)
    for layer in range(5):
        assert pattern.shards_of(layer) == tuple(pattern.shard(layer, head) for head in range(8))
    assert pattern.shards_of(3) is pattern.shards_of(4)
    assert pattern.shards_of(1)[0].local != pattern.shards_of(2)[0].local


def test_promises() -> None:
    text = HEAD + "shards: [{heads: all, local: 1}]\npromises: "
    given = language.loads(text + "{coverage: group, rows: nonempty, kv: monotone, reach: 4 layers}").promises
    assert given == {"coverage": "group", "rows": "nonempty", "kv": "monotone", "reach": 4}
    assert language.loads(text + "{}").promises == {}
    assert (
        language.loads(text + "{reach: 1 layer}").promises
        == language.loads(text + "{reach: 1}").promises
        == {"reach": 1}
    )


def test_models_are_strict_and_frozen() -> None:
    pattern = language.loads(HEAD + "shards: [{heads: all, local: 1}]")
    with pytest.raises(ValidationError):
        pattern.heads = 9
    for wrong in ({"heads": True}, {"heads": "8"}, {"heads": 8.0}, {"block": True}, {"unknown": 1}, {"causal": 1}):
        data = {"pattern": 1, "name": "demo", "heads": 8, "block": 64, "shards": [{"heads": "all", "local": 1}]}
        with pytest.raises(ValidationError):
            language.Pattern.model_validate({**data, **wrong})
    made = language.Pattern.model_validate(data)
    assert made.shard(0, 7).local == (1, 1)


@pytest.mark.parametrize("name", ["class", "__init__", "torch", "Triton", "a b", "1a", "é", "x" * 65, ""])
def test_names_that_no_module_may_have(name: str) -> None:
    assert "name" in refusal(HEAD.replace("demo", f'"{name}"') + "shards: [{heads: all, local: 1}]")


@pytest.mark.parametrize("name", ["random", "json", "_demo", "Ab9"])
def test_any_other_identifier_is_a_name(name: str) -> None:
    assert language.loads(HEAD.replace("demo", name) + "shards: [{heads: all, local: 1}]").name == name


def test_quoted_scalars_are_text() -> None:
    assert "remove the quotes" in refusal(HEAD.replace("heads: 8", 'heads: "8"') + "shards: [{heads: all, local: 1}]")
    pattern = language.loads(HEAD.replace("demo", '"on"') + 'about: "12:30"\nshards: [{heads: "0:8", local: 1}]')
    assert (pattern.name, pattern.about) == ("on", "12:30")


def test_a_mark_and_windows_line_ends_are_taken() -> None:
    text = "\ufeff" + (HEAD + "shards:\n  - heads: all\n    local: 4\n").replace("\n", "\r\n")
    assert language.loads(text).shard(0, 0).local == (4, 1)


def test_files(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(HEAD + "shards: [{heads: all, local: 1}]", encoding="utf-8")
    assert language.load(good).file == str(good) == language.load(str(good)).file
    for path, words in (("goood.yaml", "did you mean"), (".", "directory"), ("a\0b", "not a file name")):
        with pytest.raises(PatternError, match=words):
            language.load(f"{tmp_path}/{path}")
    (tmp_path / "xylophone.yaml").symlink_to("nowhere.yaml")
    with pytest.raises(PatternError, match="no such file") as dangling:
        language.load(tmp_path / "xylophone.yaml")
    assert "xylophone" not in (dangling.value.diagnostics[0].help or ""), "it is not what was meant by itself"
    (tmp_path / "latin.yaml").write_bytes(HEAD.encode() + "about: caf\xe9\n".encode("latin-1"))
    with pytest.raises(PatternError, match=r":6:11: byte \d+ is not UTF-8"):
        language.load(tmp_path / "latin.yaml")
    (tmp_path / "wide.yaml").write_text(HEAD, encoding="utf-16")
    with pytest.raises(PatternError, match="is not UTF-8"):
        language.load(tmp_path / "wide.yaml")
