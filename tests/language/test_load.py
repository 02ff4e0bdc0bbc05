"""What a file means: defaults, the numbers of each shard, layers, promises, masks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from patterncc import language
from patterncc.errors import PatternError
from patterncc.language import masks

HEAD = "pattern: 1\nname: demo\nheads: 8\nkv_heads: 2\nblock: 64\n"


def shard(body: str, head: int = 0, layer: int = 0, top: str = "", folder: Path | None = None) -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return repr(language.loads(HEAD + top + "shards:\n  - heads: all\n" + lines, folder=folder).shard(layer, head))


def refusal(text: str, folder: Path | None = None) -> str:
    with pytest.raises(PatternError) as caught:
        language.loads(text, "a.yaml", folder)
    return caught.value.render()


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
    with pytest.raises(PatternError, match=r"line 6, character 11.* is not UTF-8"):
        language.load(tmp_path / "latin.yaml")
    (tmp_path / "wide.yaml").write_text(HEAD, encoding="utf-16")
    with pytest.raises(PatternError, match="is not UTF-8"):
        language.load(tmp_path / "wide.yaml")


class TestMasks:
    def load(self, folder: Path, array: object, entry: str = "heads: all") -> str:
        np.save(folder / "m.npy", array)  # type: ignore[arg-type]
        text = (
            HEAD
            + f"shards:\n  - {entry}\n    mask: m.npy\n"
            + ("" if "all" in entry else "  - {heads: rest, local: 1}\n")
        )
        try:
            self.pattern = language.loads(text, "a.yaml", folder)
        except PatternError as error:
            return error.render()
        return ""

    def test_two_dimensions(self, tmp_path: Path) -> None:
        bits = np.arange(12).reshape(3, 4) % 5 == 0
        assert not self.load(tmp_path, bits)
        mask = self.pattern.shard(0, 7).mask
        assert mask is not None and (mask == bits).all() and not mask.flags.writeable
        assert not self.load(tmp_path, np.asfortranarray(bits))
        assert (self.pattern.shard(0, 7).mask == bits).all()

    def test_three_dimensions(self, tmp_path: Path) -> None:
        bits = np.arange(8 * 6).reshape(8, 2, 3) % 7 == 0
        assert not self.load(tmp_path, bits)
        assert (self.pattern.shard(0, 6).mask == bits[6]).all()
        assert not self.load(tmp_path, bits[:3], "heads: [7, 0, 4]")  # one for each of the entry's heads
        assert (self.pattern.shard(0, 0).mask == bits[1]).all() and (self.pattern.shard(0, 7).mask == bits[0]).all()
        assert "the mask is for 5 heads" in self.load(tmp_path, bits[:5], "heads: 0-2")

    @pytest.mark.parametrize(
        ("array", "words"),
        [
            (np.zeros((2, 2), np.uint8), "holds uint8, not bool"),
            (np.zeros((2, 2)), "holds float64, not bool"),
            (np.zeros(4, bool), r"has shape \[4\]"),
            (np.zeros((2, 0), bool), r"has shape \[2, 0\]"),
            (np.zeros((2, 2, 2, 2), bool), "has shape"),
        ],
    )
    def test_wrong_kinds(self, tmp_path: Path, array: object, words: str) -> None:
        import re

        said = self.load(tmp_path, array)
        assert re.search(words, said) and "a.yaml:8:11: " in said

    def test_pickles_are_not_opened(self, tmp_path: Path) -> None:
        np.save(tmp_path / "m.npy", np.array([object()]), allow_pickle=True)
        text = HEAD + "shards:\n  - heads: all\n    mask: m.npy\n"
        assert "holds objects, not bool" in refusal(text, tmp_path)

    def test_damaged_files(self, tmp_path: Path) -> None:
        self.load(tmp_path, np.ones((8, 8), bool))
        whole = (tmp_path / "m.npy").read_bytes()
        text = HEAD + "shards:\n  - heads: all\n    mask: m.npy\n"
        for content, words in (
            (whole[:-1], "holds 63 of 64 entries"),
            (whole + b"x", "holds 65 of 64 entries"),
            (whole[:9], "not a .npy file"),
            (b"", "not a .npy file"),
            (b"PK\x03\x04" + whole, "not a .npy file"),
            (whole.replace(b"(8, 8)", b"(9**9)"), "not a .npy file"),
        ):
            (tmp_path / "m.npy").write_bytes(content)
            assert words in refusal(text, tmp_path), content[:20]
        header = whole.replace(b"(8, 8)", b"(8888888888, 8888888888)"[:6])
        (tmp_path / "m.npy").write_bytes(header)
        assert "mask" in refusal(text, tmp_path)

    def test_a_header_that_lies_about_the_size(self, tmp_path: Path) -> None:
        with open(tmp_path / "m.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|b1", "fortran_order": False, "shape": (10**9, 10**9)}
            )
        assert "entries; the most is" in refusal(HEAD + "shards:\n  - heads: all\n    mask: m.npy\n", tmp_path)

    def test_bytes_other_than_0_and_1(self, tmp_path: Path) -> None:
        self.load(tmp_path, np.zeros((2, 2), bool))
        file = tmp_path / "m.npy"
        file.write_bytes(file.read_bytes()[:-1] + b"\x80")
        pattern = language.loads(HEAD + "shards:\n  - heads: all\n    mask: m.npy\n", folder=tmp_path)
        mask = pattern.shard(0, 0).mask
        assert mask is not None and mask.view(np.uint8).tolist() == [[0, 0], [0, 1]]

    @pytest.mark.parametrize("name", ["m" * 300 + ".npy", "m" * 300 + "/m.npy", "m/" * 2040 + "m.npy"])
    def test_a_name_that_the_system_refuses(self, tmp_path: Path, name: str) -> None:
        said = refusal(HEAD + f"shards:\n  - heads: all\n    mask: {name}\n", tmp_path)
        assert "cannot be read: file name too long" in said and "a.yaml:8:11: " in said

    @pytest.mark.parametrize("call", ["stat", "open"])
    def test_a_folder_without_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        self.load(tmp_path, np.ones((8, 8), bool))
        if call == "open":
            monkeypatch.setattr(masks, "open", refuse, raising=False)
        else:
            monkeypatch.setattr(Path, "stat", refuse)
        masks._read.cache_clear()
        said = refusal(HEAD + "shards:\n  - heads: all\n    mask: m.npy\n", tmp_path)
        assert "`m.npy` cannot be read: permission denied" in said

    def test_paths_stay_in_the_folder(self, tmp_path: Path) -> None:
        inner = tmp_path / "inner"
        inner.mkdir()
        np.save(tmp_path / "m.npy", np.ones((2, 2), bool))
        np.save(inner / "own.npy", np.ones((2, 2), bool))
        (inner / "link.npy").symlink_to(tmp_path / "m.npy")
        (inner / "loop.npy").symlink_to(inner / "loop.npy")
        (inner / "near.npy").symlink_to(inner / "own.npy")
        (inner / "folder.npy").mkdir()
        for name, words in (
            ("../m.npy", "not a path inside"),
            (f"{tmp_path}/m.npy", "not a path inside"),
            ("x/../../m.npy", "not a path inside"),
            ('"C:\\\\m.npy"', "not a path inside"),
            ("link.npy", "leads out of"),
            ("loop.npy", "mask"),
            ("folder.npy", "not a file"),
            ("onw.npy", "did you mean own.npy"),
            ("own.txt", "ends in .npy"),
        ):
            assert words in refusal(HEAD + f"shards:\n  - heads: all\n    mask: {name}\n", inner), name
        for name in ("own.npy", "./own.npy", "near.npy"):
            assert (
                language.loads(HEAD + f"shards:\n  - heads: all\n    mask: {name}\n", folder=inner).shard(0, 0).mask
                is not None
            )
        assert "a pattern that is read from a file" in refusal(HEAD + "shards:\n  - heads: all\n    mask: own.npy\n")


def refuse(path: object, *_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
