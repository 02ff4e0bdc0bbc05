"""Measured configurations: whole in the cache or not there, found by the launches, and never in a user's way."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from patterncc.runtime.cache import Cache
from tests.package.launch.tuned import MEASURED, Q, config, part, store
from tests.package.made import HEAD, compiled

pytest.importorskip("triton")


class Spy:
    """In the place of a kernel: what its last launch was given."""

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return self.launched

    def launched(self, *_: object, **constants: Any) -> None:
        self.constants = constants

    @property
    def tile(self) -> tuple[int, ...]:
        """Rows, keys, warps, stages: rows are positions times heads, or in dK and dV rows alone."""
        c = self.constants
        rows = c["BLOCK_M"] if "BLOCK_M" in c else c["BLOCK_Q"] * c["BLOCK_H"]
        return rows, c["BLOCK_N"], c["num_warps"], c["num_stages"]


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> dict[str, Spy]:
    found = {}
    for module, kernel, name in (
        ("launch.forward", "attn_fwd", "forward"),
        ("launch.backward", "attn_bwd_dq", "dq"),
        ("launch.backward", "attn_bwd_dkdv", "dkdv"),
        ("launch.sums", "attn_bwd_prepare", "prepare"),
    ):
        found[name] = Spy()
        monkeypatch.setattr(part(module), f"{kernel}_small", found[name])
    return found


def launch(spies: dict[str, Spy], q_len: int = 40, **options: Any) -> dict[str, tuple[int, ...]]:
    """The tiles that the forward and backward launchers take."""
    q, k = torch.zeros(1, 4, q_len, 16), torch.zeros(1, 2, 40, 16)
    place = {"layer": 0, "scale": 1.0, "head_offset": 0, "q_start": 0, "kv_start": 0, **options}
    out, lse = part("launch.forward").forward(q, k, k, **place)
    part("launch.backward").backward(q, k, k, out, lse, q, None, **place)
    return {name: spies[name].tile for name in ("forward", "dq", "dkdv")}


OF_TABLE = {"forward": (64, 64, 4, 2), "dq": (64, 64, 4, 2), "dkdv": (64, 64, 4, 2)}


@pytest.mark.parametrize("direction", ["forward", "dq", "dkdv"])
def test_a_launch_takes_what_was_measured_for_its_direction(
    direction: str, tuned: ModuleType, spies: dict[str, Spy]
) -> None:
    assert launch(spies) == OF_TABLE
    store(tuned, direction)
    assert launch(spies) == OF_TABLE | {direction: (32, 16, 8, 3)}


def test_few_rows_are_decoding(tuned: ModuleType, spies: dict[str, Spy]) -> None:
    store(tuned, "decode", config(16, 128, 2, 4))
    assert launch(spies) == OF_TABLE
    assert launch(spies, q_len=16)["forward"] == (16, 128, 2, 4)
    assert launch(spies, q_len=17)["forward"] != (16, 128, 2, 4)


def test_a_configuration_given_wins(tuned: ModuleType, spies: dict[str, Spy]) -> None:
    for direction in tuned.DIRECTIONS:
        store(tuned, direction)
    given = config(16, 32, 2, 1)
    assert launch(spies, config=given) == dict.fromkeys(OF_TABLE, (16, 32, 2, 1))


def test_while_one_is_tried_it_is_taken_everywhere(tuned: ModuleType, spies: dict[str, Spy]) -> None:
    """In other threads too: torch differentiates on a GPU in its own."""
    store(tuned)
    with tuned.trying("forward", config(16, 32, 2, 1)):
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(tuned.forward(Q, 40)))
        thread.start()
        thread.join()
        assert seen == [config(16, 32, 2, 1)] and launch(spies)["forward"] == (16, 32, 2, 1)
    assert launch(spies)["forward"] == (32, 16, 8, 3)


@pytest.mark.parametrize("is_there", [True, False])
def test_the_file_is_read_once(is_there: bool, tuned: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_there:
        store(tuned)
    first = tuned.forward(Q, 40)
    assert first == (config() if is_there else None)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a call opens a file, or asks the device")

    for name in ("_stored", "_facts", "cache_folder"):
        monkeypatch.setattr(tuned, name, refused)
    assert tuned.forward(Q, 999) is first
    with pytest.raises(AssertionError, match="opens a file"):  # the control: another dtype is not known yet
        tuned.forward(Q.half(), 40)


def resigned(content: dict[str, Any], tuned: ModuleType) -> str:
    """As if `store` had written it."""
    content = {key: value for key, value in content.items() if key != "sha256"}
    return json.dumps(content | {"sha256": tuned._digest(content)})


def changed(text: str, tuned: ModuleType, key: str, value: object) -> str:
    content = json.loads(text)
    return resigned(content | {key: value if key != "config" else content["config"] | value}, tuned)  # type: ignore[operator]


DAMAGE: dict[str, tuple[Callable[[str, ModuleType], str], str]] = {
    "cut": (lambda text, _: text[:100], "damaged"),
    "empty": (lambda text, _: "", "damaged"),
    "a list": (lambda text, _: "[]", "damaged"),
    "deep": (lambda text, _: "[" * 50000, "damaged"),
    "too long": (lambda text, _: " " * 70000 + text, "damaged"),
    "twice": (lambda text, _: text + text, "damaged"),
    "not text": (lambda text, _: "\udcff", "damaged"),
    "a number changed": (lambda text, _: text.replace('"keys": 16', '"keys": 64'), "damaged"),
    "another format": (lambda text, t: changed(text, t, "format", 2), r"has format 2, this package reads 1"),
    "about something else": (lambda text, t: changed(text, t, "facts", {}), "about something else"),
    "rows no power of two": (lambda text, t: changed(text, t, "config", {"rows": 48}), "no configuration"),
    "too few keys": (lambda text, t: changed(text, t, "config", {"keys": 8}), "no configuration"),
    "no stages": (lambda text, t: changed(text, t, "config", {"stages": 0}), "no configuration"),
    "a fraction": (lambda text, t: changed(text, t, "config", {"warps": 4.0}), "no configuration"),
    "one more": (lambda text, t: changed(text, t, "config", {"more": 4}), "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_gives_one_warning_and_the_table(damage: str, tuned: ModuleType) -> None:
    path = store(tuned)
    change, why = DAMAGE[damage]
    path.write_text(change(path.read_text(), tuned), errors="surrogateescape")
    with pytest.warns(
        tuned.TunedWarning, match=rf"{re.escape(str(path))} is not used: .*{why}.*measures again"
    ) as seen:
        assert [tuned.forward(Q, 40) for _ in range(3)] == [None] * 3
    assert len(seen) == 1
    store(tuned)  # a new measurement mends it
    assert tuned.forward(Q, 40) == config()


def test_a_file_signed_anew_is_whole(tuned: ModuleType) -> None:
    """The control of the test above: `changed` alone is no damage."""
    path = store(tuned)
    path.write_text(changed(path.read_text(), tuned, "config", {"stages": 4}))
    assert tuned.forward(Q, 40) == config(stages=4)


@pytest.mark.parametrize("where", ["a file", "unreadable"])
def test_a_cache_that_cannot_be_read(where: str, tuned: ModuleType, fresh_cache: Path) -> None:
    if where == "a file":
        fresh_cache.write_text("")
        assert tuned.forward(Q, 40) is None
        return
    path = store(tuned)
    path.unlink()
    path.mkdir()  # reading it fails also for root
    with pytest.warns(tuned.TunedWarning, match="directory"):
        assert tuned.forward(Q, 40) is None


ABOUT = (
    HEAD.replace("promises", "about: Other words.\npromises") + "shards: [{heads: all, local: 2, stride: 4, offset: h}]"
)


def test_what_a_result_depends_on(tuned: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fact alone asks for another measurement; what is no fact does not."""

    def files() -> set[str]:
        kinds = [("forward", Q), ("decode", Q), ("forward", Q.half())]
        return {tuned._file(tuned._facts(direction, q)) for direction, q in kinds}

    known = files()
    assert len(known) == 3
    same = [Q.bfloat16(), Q[:, :, :5], Q.expand(3, 4, 40, 16).half()]
    assert {tuned._file(tuned._facts("forward", q)) for q in same} <= known
    for name, value in (("arch", "sm_90"), ("processors", 132), ("device_name", "NVIDIA H200")):
        with monkeypatch.context() as patch:
            patch.setattr(tuned, name, lambda device, value=value: value)
            assert not files() & known, name
    with monkeypatch.context() as patch:
        patch.setattr("triton.__version__", "99.0")
        assert not files() & known
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
        assert len(files() & known) == 1  # of float16
    for other in ("tokens", "one_kv_head"):
        assert part("launch.tuned", other)._kernels() != tuned._kernels()
    table = import_module(f"{compiled('strided', 'table')[1].__name__}.launch.tuned")
    assert table._kernels() != tuned._kernels()
    assert compiled(ABOUT)[1].__name__ != compiled("strided")[1].__name__
    assert part("launch.tuned", ABOUT)._kernels() == tuned._kernels()


def test_the_cache_is_patternccs(tuned: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = set()
    for given in (str(tmp_path / "given"), "relative", None):
        for platform in ("linux", "darwin", "win32"):
            for xdg in (str(tmp_path / "xdg"), "relative"):
                with monkeypatch.context() as patch:
                    patch.setenv("HOME", str(tmp_path))
                    patch.setenv("XDG_CACHE_HOME", xdg)
                    patch.setattr(sys, "platform", platform)
                    patch.delenv("PATTERNCC_CACHE_DIR")
                    if given:
                        patch.setenv("PATTERNCC_CACHE_DIR", given)
                    assert tuned.cache_folder() == Cache.of_user().root
                    seen.add(tuned.cache_folder())
    assert len(seen) == 6


def test_patterncc_reads_what_packages_write(tuned: ModuleType, fresh_cache: Path) -> None:
    cache = Cache.of_user()
    paths = [store(tuned), store(tuned, "dq")]
    assert [file.path for file in cache.tuned()] == sorted(paths)
    content = cache.tuned()[0].read()
    assert (content["name"], content["measured"]) == ("small", MEASURED)
    for damage, (change, _) in DAMAGE.items():
        paths[0].write_text(change(store(tuned).read_text(), tuned), errors="surrogateescape")
        [file] = [file for file in cache.tuned() if file.path == paths[0]]
        if damage in ("rows no power of two", "too few keys", "no stages", "a fraction", "one more"):
            file.read()  # as it was written: what it says is the package's affair
        else:
            with pytest.raises(ValueError):
                file.read()
    assert cache.clear_tuned("other") == []
    assert len(cache.clear_tuned("small")) == 2 and not any(map(Path.exists, paths))
