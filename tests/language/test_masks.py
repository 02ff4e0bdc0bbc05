"""Masks that a pattern names: which arrays are taken, and what is said of others."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from patterncc import language
from patterncc.errors import PatternError
from patterncc.language import masks
from tests.language.loaded import HEAD, refusal


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
