"""Atomic operations on global memory. What a program adds to tensors is there late, and nobody else's until it says so:
programs that add to the same numbers must take turns."""

from __future__ import annotations

from typing import Any

import numpy as np

from .machine import Fault, machine, task
from .values import Value, value


class Adding:
    """Numbers that are added to global memory, under way: they are there at the latest when their task releases, and
    until then nobody else may touch them."""

    def __init__(self, array: np.ndarray, at: np.ndarray, numbers: np.ndarray) -> None:
        self.array, self.at, self.numbers = array, at, numbers

    def land(self) -> None:
        np.add.at(self.array, self.at, self.numbers)

    def check_apart(self, array: np.ndarray, at: np.ndarray, what: str) -> None:
        """Fault where these numbers of an array have been added to."""
        if np.shares_memory(self.array, array) and np.intersect1d(self.at, at).size:
            raise Fault(f"{what} numbers that another program adds to and has not released")


def atomic_add(pointer: Any, x: Any, mask: Any = None, sem: str = "acq_rel", scope: str = "gpu") -> Value | None:
    """The old number. Of a tensor none: it is added later, at the latest when the task releases what it has done. Zero
    that is added to one number and gives again what it gave before, with nothing done since, is a wait for another."""
    at, _ = pointer.places(mask)
    if at.ndim:
        if sem != "relaxed" or mask is not None:
            raise NotImplementedError("tensors are added in no order of their own, and whole")
        check_apart(pointer.array, at, "an addition to")
        machine().pause()
        adding = Adding(pointer.array, at.reshape(-1), np.broadcast_to(value(x).x, at.shape).reshape(-1).copy())
        task().adds.append(adding)
        task().unmet += 1
        machine().copies.append(adding)
        return None
    release(sem)
    place = int(at)
    if not np.any(value(x).x) and task().polled[:2] == (id(pointer.array), place):
        held = task().polled[2]
        machine().pause(lambda: pointer.array[place] != held, f"waits for a number other than {held} in memory")
    else:
        machine().pause()
    old = pointer.array[at].copy()
    pointer.array[at] += value(x).x
    task().polled = () if np.any(value(x).x) else (id(pointer.array), place, old)
    return Value(old, pointer.element)


def atomic_xchg(pointer: Any, x: Any, mask: Any = None, sem: str = "acq_rel", scope: str = "gpu") -> Value:
    release(sem)
    machine().pause()
    at, _ = pointer.places(mask)
    old = pointer.array[at].copy()
    pointer.array[at] = value(x).x
    return Value(old, pointer.element)


def release(sem: str) -> None:
    """What this task has added is there before what it does next, if that is said to release it."""
    own = task()
    if sem in ("release", "acq_rel"):
        if own.unmet:
            raise Fault("one thread releases what others have added that it has not met at a barrier")
        for adding in own.adds:
            if adding in machine().copies:
                machine().copies.remove(adding)
                adding.land()
        own.adds.clear()


def check_apart(array: np.ndarray, at: np.ndarray, what: str) -> None:
    """Fault where another task is adding to these numbers."""
    for other in machine().tasks:
        if other is not task():
            for adding in other.adds:
                adding.check_apart(array, at, what)
