"""Threads that work on pieces of one attention at the same time, each without threads of its own.

torch would cut every small operation among all cores, and wait for the slowest each time; pieces wait only at the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Task, Result = TypeVar("Task"), TypeVar("Result")
_lock = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by process and number of threads


def work(do: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
    """The results of `do` for every task, in the order of the tasks."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads < 2:
        yield from map(do, tasks)
    else:
        yield from _pool(torch.get_num_threads()).map(lambda task: _without_gradients(do, task), tasks)


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        key = os.getpid(), threads
        if key not in _pools:
            ready = threading.Barrier(threads + 1)
            _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="attention")
            for _ in range(threads):
                _pools[key].submit(_settle, ready)
            ready.wait()
            torch.set_num_threads(threads)  # a thread sets its own number, and that of threads to come
        return _pools[key]


def _settle(ready: threading.Barrier) -> None:
    torch.get_num_threads()  # a thread's first question sets its number to that of the process, which is not 1
    torch.set_num_threads(1)
    ready.wait()


def _without_gradients(do: Callable[[Task], Result], task: Task) -> Result:
    with torch.inference_mode():  # may also write to tensors that were made in it
        return do(task)
