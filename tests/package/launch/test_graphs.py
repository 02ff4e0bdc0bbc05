"""Tables that a captured CUDA graph reads: nobody frees them. Capturing is only said here; there is no GPU."""

from __future__ import annotations

import gc
import importlib
import weakref
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.package.made import HEAD, compiled

CPU = torch.device("cpu")
TABLES = HEAD.replace("small", "graphed") + "shards: [{heads: all, local: 1, random: {blocks: 2, seed: 3}}]"


@pytest.fixture(scope="module")
def parts() -> dict[str, ModuleType]:
    """Of a package in table form, whose tables grow with the length."""
    pytest.importorskip("triton")
    _, package = compiled(TABLES)
    names = "graphs", "arrays", "requests"
    return {name: importlib.import_module(f"{package.__name__}.launch.{name}") for name in names}


@pytest.fixture
def capturing(parts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """A list that says whether a graph is captured: its last entry."""
    said = [False]
    monkeypatch.setattr(parts["graphs"], "is_capturing", lambda device: said[-1])
    monkeypatch.setattr(parts["graphs"], "_pinned", {})
    yield said
    parts["arrays"].class_tables.cache_clear()


def table(parts: dict[str, ModuleType], rows: int) -> weakref.ref[torch.Tensor]:
    """A reference to the entries of the table of so many rows, which keeps nothing alive."""
    classes = parts["arrays"].present(0, 0, 2)
    return weakref.ref(parts["arrays"].class_tables(False, classes, 0, rows, rows, CPU)[1])


def forget(parts: dict[str, ModuleType]) -> None:
    """Ask for so many others that a cache forgets what it had."""
    for rows in range(100, 100 + 2 * parts["arrays"].class_tables.most):
        table(parts, rows)
    gc.collect()


def test_what_a_graph_reads_outlives_the_cache(parts: dict[str, ModuleType], capturing: list[bool]) -> None:
    made = table(parts, 20)
    capturing.append(True)
    assert table(parts, 20)() is made()  # by the captured call
    capturing.append(False)
    forget(parts)
    assert made() is not None and table(parts, 20)() is not made()  # the cache has another one now


def test_what_no_graph_reads_is_freed(parts: dict[str, ModuleType], capturing: list[bool]) -> None:
    """Negative control: the same without a graph."""
    made = table(parts, 20)
    assert table(parts, 20)() is made()
    forget(parts)
    assert made() is None


def test_a_graph_makes_no_table(parts: dict[str, ModuleType], capturing: list[bool]) -> None:
    capturing.append(True)
    with pytest.raises(RuntimeError, match=r"graphed: a call of these lengths makes tables.* make it once before"):
        table(parts, 21)
    capturing.append(False)
    made = table(parts, 21)
    capturing.append(True)
    assert table(parts, 21)() is made() is not None


def test_what_is_forgotten_is_freed_when_no_stream_reads_it(
    parts: dict[str, ModuleType], capturing: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory goes back to the stream that it was made on, while launches on another may still be waiting."""
    made, there = table(parts, 20), list[bool]()
    monkeypatch.setattr(parts["graphs"], "quiet", lambda device: there.append(made() is not None))
    forget(parts)
    assert made() is None and there[0]


GPU = torch.device("cuda", 0)


def test_other_streams_may_read_what_is_kept(
    parts: dict[str, ModuleType], capturing: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds a table may be on another stream than it was made on, so it is kept once it is there; what a graph
    being captured makes is not kept, and such a stream must not be waited for."""
    graphs, requests, done = parts["graphs"], parts["requests"], list[str]()
    stream = SimpleNamespace(synchronize=lambda: done.append("waited"))
    arange = torch.arange
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch, "arange", lambda *given, dtype, device: done.append("made") or arange(*given))
    monkeypatch.setattr(requests, "is_capturing", lambda device: capturing[-1])
    monkeypatch.setattr(requests, "_starts", {})
    some = graphs.tables()(lambda device: torch.arange(3, dtype=torch.int32, device=device))
    for make in (lambda: some(GPU), lambda: requests.query_starts(2, 3, GPU)):
        made = make()
        assert done == ["made", "waited"] and make() is made and len(done) == 2
        done.clear()
    capturing.append(True)
    assert requests.query_starts(5, 3, GPU).tolist() == [0, 3, 6, 9, 12, 15]
    assert done == ["made"] and len(requests._starts) == 1


class Stream:
    cuda_stream = 7


@pytest.fixture
def made(parts: dict[str, ModuleType], capturing: list[bool], monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Each tensor of zeros that is made for a GPU, on a current stream of number 7."""
    graphs, made = parts["graphs"], list[torch.Tensor]()

    def zeros(*shape: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        assert device == GPU
        made.append(torch.ones(shape, dtype=dtype).zero_())
        return made[-1]

    monkeypatch.setattr(graphs.torch, "zeros", zeros)
    monkeypatch.setattr(graphs.torch.cuda, "current_stream", lambda device: Stream)
    monkeypatch.setattr(Stream, "cuda_stream", 7)
    monkeypatch.setattr(graphs, "_zeros", {})
    return made


def test_zeros_are_given_once(
    parts: dict[str, ModuleType], made: list[torch.Tensor], capturing: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = parts["graphs"]
    given = [graphs.zeros(GPU) for _ in range(graphs.ZEROS + 1)]
    assert len({x.data_ptr() for x in given}) == graphs.ZEROS + 1 and len(made) == 2
    assert not any(x.any() or x.data_ptr() % 16 for x in given)
    monkeypatch.setattr(Stream, "cuda_stream", 8)  # what one stream has set to zero is not yet so for another
    assert graphs.zeros(GPU).data_ptr() not in {x.data_ptr() for x in given} and len(made) == 3
    capturing.append(True)
    own = [graphs.zeros(GPU).data_ptr() for _ in range(2)]
    assert own == [x.data_ptr() for x in made[3:]]  # a graph's own, set to zero by each replay


def test_zeros_of_several_counts(parts: dict[str, ModuleType], made: list[torch.Tensor]) -> None:
    """As many as are asked for, at multiples of 16 bytes, and no two tensors share any."""
    graphs = parts["graphs"]
    given = [graphs.zeros(GPU, count) for count in (1, 4, 5, 33, 33, 264)]
    assert [len(x) for x in given] == [4, 4, 8, 64, 64, 512] and not any(x.data_ptr() % 16 for x in given)
    places = {x.data_ptr() + 4 * n for x in given for n in range(len(x))}
    assert len(places) == sum(map(len, given))


def test_a_graph_takes_zeros_of_a_launch_that_leaves_some(
    parts: dict[str, ModuleType], made: list[torch.Tensor], capturing: list[bool]
) -> None:
    """Those that calls before it have made, while there are any: each once, for good, and of the count asked for."""
    graphs = parts["graphs"]
    given = [graphs.zeros(GPU, 5, True)]
    capturing.append(True)
    given += [graphs.zeros(GPU, 5, True) for _ in range(graphs.ZEROS - 1)]
    assert len(made) == 1 and len({x.data_ptr() for x in given}) == graphs.ZEROS
    assert list(graphs._pinned) == [id(made[0])]
    own = [graphs.zeros(GPU, *asked).data_ptr() for asked in ((5, True), (9, True), (5,))]
    assert own == [x.data_ptr() for x in made[1:]]
    capturing.append(False)
    assert graphs.zeros(GPU, 5, True).data_ptr() not in {x.data_ptr() for x in given}
