"""The order of slow tests, and what is said of a run's time."""

from __future__ import annotations

from types import SimpleNamespace

from tests import runs


def named(*names: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(nodeid=name) for name in names]


def test_the_first_case_of_each_test_comes_first() -> None:
    items = named("a.py::x[1]", "a.py::x[2]", "a.py::x[3]", "a.py::y", "b.py::x[1]", "b.py::x[2]")
    found = [item.nodeid for item in runs.most_telling_first(items)]
    assert found == ["a.py::x[1]", "a.py::y", "b.py::x[1]", "a.py::x[2]", "b.py::x[2]", "a.py::x[3]"]


def test_all_phases_of_a_files_tests_are_summed() -> None:
    phases = [("a.py::x[::]", 1.0), ("a.py::x[::]", 0.5), ("b.py::y", 2.0)]
    phases += [(f"{n}.py::z", 0.01) for n in range(20)]
    reports = [SimpleNamespace(nodeid=name, duration=took) for name, took in phases]
    whole, *files = runs.slowest_files([*reports, *named("c.py")])  # one that was not collected has no time
    assert whole == "    3.7 s  all 22 files" and len(files) == runs.FILES
    assert files[:2] == ["    2.0 s  b.py", "    1.5 s  a.py"]
