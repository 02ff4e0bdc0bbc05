"""The CPU's decoding suite at toy length: figures of a right cache, none of a wrong one."""

import pytest

from benchmarks import decoding_cpu
from benchmarks.gpu.witness import WrongError


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(decoding_cpu, "LENGTHS", (1300,))
    monkeypatch.setattr(decoding_cpu, "STEPS", 1)


def test_a_row_has_times_bytes_and_error(toy, tmp_path):
    (row,) = decoding_cpu.run(tmp_path)
    assert row["compact_s_per_step"] > 0 and row["full_s_per_step"] > 0
    assert row["compact_bytes"] < row["full_bytes"] == 2 * 1301 * 8 * 128 * 4
    assert 0 < row["error"] < 2e-6


def test_a_wrong_cache_gets_no_time(toy, tmp_path, monkeypatch):
    import patterncc

    right = patterncc.load

    class Shifted:
        """A cache that has forgotten the newest token's value."""

        def __init__(self, cache):
            self.cache = cache

        def fork(self, *indices):
            return Shifted(self.cache.fork(*indices))

        def step(self, q, k, v):
            return self.cache.step(q, k, 0 * v)

    def load(path):
        package = right(path)
        package.KVCache, whole = lambda *given, **named: Shifted(whole(*given, **named)), package.KVCache
        return package

    monkeypatch.setattr(patterncc, "load", load)
    with pytest.raises(WrongError, match="before any time"):
        list(decoding_cpu.run(tmp_path))
