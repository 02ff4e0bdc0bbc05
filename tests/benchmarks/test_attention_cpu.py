"""The CPU's attention suite at toy size: every cell is measured, and a wrong package gets no time."""

import time

import pytest
import torch

from benchmarks import attention_cpu
from benchmarks.gpu.witness import WrongError
from benchmarks.memory import peak


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(attention_cpu, "FORWARD", {192: ((1, 4), (2, 4))})
    monkeypatch.setattr(attention_cpu, "BACKWARD", {192: ((1, 4),)})
    monkeypatch.setattr(attention_cpu, "FLEX_MOST", 0)  # compiling it takes longer than all of this


@pytest.mark.parametrize("backward", [False, True])
def test_every_cell_has_time_memory_and_error(toy, tmp_path, backward):
    rows = list(attention_cpu.run(tmp_path, backward=backward, turns=2))
    assert [(row["local"], row["dtype"]) for row in rows] == (
        [(1, "fp32"), (1, "bf16")] if backward else [(1, "fp32"), (2, "fp32"), (1, "bf16"), (2, "bf16")]
    )
    for row in rows:
        assert 0 < row["error"] < attention_cpu.TOLERANCE[row["dtype"]]
        assert row["share_of_ideal"] == pytest.approx(row["speedup"] * row["density"], abs=2e-3)
        assert row["dense_wall_s"] > 0 and row["patterncc_wall_s"] > 0
        assert "patterncc_peak_bytes" in row


def test_what_takes_too_long_stays_empty(toy, tmp_path, monkeypatch):
    soon = time.perf_counter() + 100
    monkeypatch.setattr(attention_cpu, "SECONDS_A_PAIR", {"forward": 1.0})
    (row, *_) = attention_cpu.run(tmp_path, turns=1, deadline=soon)
    assert not {"speedup", "share_of_ideal", "dense_wall_s"} & set(row)
    assert row["patterncc_wall_s"] > 0
    monkeypatch.setattr(attention_cpu, "SECONDS_A_PAIR", {"forward": 1e-12})
    (row, *_) = attention_cpu.run(tmp_path, turns=1, deadline=soon)
    assert row["dense_wall_s"] > 0


def test_the_faster_dense_attention_counts():
    cell = {"patterncc_wall_s": 1.0, "dense_wall_s": 30.0, "dense_fp32_wall_s": 5.0, "density": 0.1}
    assert attention_cpu._ratios(cell) == {"speedup": 5.0, "share_of_ideal": 0.5}
    del cell["dense_fp32_wall_s"]
    assert attention_cpu._ratios(cell)["speedup"] == 30.0


def test_a_peer_that_does_not_compile_leaves_its_cell_empty(toy, tmp_path, monkeypatch):
    def flex(*_, **__):
        def call(q, k, v):
            raise RuntimeError("no C++ compiler was found")

        return call

    monkeypatch.setattr(attention_cpu, "flex", flex)
    monkeypatch.setattr(attention_cpu, "FLEX_MOST", 192)
    (row, *_) = attention_cpu.run(tmp_path, turns=5)  # the median of one may be a pause
    assert "no C++ compiler" in row["flex_note"] and "over_flex" not in row
    assert row["speedup"] > 0 and row["path"] in ("compiled", "torch")


@pytest.mark.parametrize("backward", [False, True])
def test_a_wrong_result_gets_no_time(toy, tmp_path, monkeypatch, backward):
    package = attention_cpu._package

    class Wrong:
        def __init__(self, right):
            self.right = right

        def attention(self, q, k, v):
            out = self.right.attention(q, k, v)
            return out.detach() + 1.01 * (out - out.detach()) if backward else out * 1.01

    monkeypatch.setattr(attention_cpu, "_package", lambda *shape: Wrong(package(*shape)))
    with pytest.raises(WrongError, match=r"192 tokens, local 1.*before any time"):
        list(attention_cpu.run(tmp_path, backward=backward, turns=1))


def test_a_peer_with_another_mask_gets_no_time(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(attention_cpu, "flex", lambda *_, **__: attention_cpu.dense)
    monkeypatch.setattr(attention_cpu, "FLEX_MOST", 192)
    with pytest.raises(WrongError, match="before any time"):
        list(attention_cpu.run(tmp_path, turns=1))


def test_peak_memory_is_what_a_call_holds_at_most():
    taken = peak(lambda: torch.ones(50 << 18).sum())
    if taken is None:
        pytest.skip("only Linux says what memory a process has")
    assert 45 << 20 < taken < 80 << 20
    assert peak(lambda: None) < 5 << 20
