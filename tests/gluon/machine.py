"""Who goes on when: partitions take turns, chosen by a seed, and copies land at any moment after they were begun."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

current = threading.local()


class Fault(AssertionError):
    """The kernel does what hardware would punish."""


class Deadlock(Fault):
    """Everybody waits, and nothing is under way."""


class _Stopped(BaseException):
    """Ends a partition after a fault in another."""


def held() -> threading.Lock:
    """A lock that is taken: who waits for it goes on when somebody releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass
class Task:
    """A partition of a program, in a thread of its own."""

    name: str
    program: int
    body: Callable[[], None]
    ready: Callable[[], bool] = lambda: True
    waits_for: str = ""
    is_done: bool = False
    turn: threading.Lock = field(default_factory=held)
    products: list[Any] = field(default_factory=list)  # of this warpgroup, in order, that are under way
    unfenced: list[Any] = field(default_factory=list)  # regions written by plain stores, no fence since
    unsynced: list[Any] = field(default_factory=list)  # the same, no barrier of the partition's threads since
    stores: list[Any] = field(default_factory=list)  # copies to global memory that it began, in order
    adds: list[Any] = field(default_factory=list)  # to global memory, since it last released them
    unmet: int = 0  # of these, those since which its threads have not met at a barrier
    polled: tuple[Any, ...] = ()  # what it has read again and again, and did since nothing else


class Machine:
    """Runs partitions to their end."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.tasks: list[Task] = []
        self.copies: list[Any] = []  # under way
        self.back = held()
        self.fault: BaseException | None = None
        self.turns = 0

    def run(self, bodies: list[tuple[str, int, Callable[[], None]]]) -> None:
        """Run (name, program, body) each as a task, and what they start, until all are done; raises what went wrong."""
        for name, program, body in bodies:
            self.start(Task(name, program, body))
        while True:
            living = [task for task in self.tasks if not task.is_done]
            able = [task for task in living if task.ready()]
            choices = able + self.copies
            if self.fault or not choices:
                break
            self.turns += 1
            chosen = choices[self.random.randrange(len(choices))]
            if isinstance(chosen, Task):
                chosen.turn.release()
                self.back.acquire()
            else:
                self.copies.remove(chosen)
                try:
                    chosen.land()
                except BaseException as error:
                    self.fault = error
        if not self.fault and (waiting := [task for task in self.tasks if not task.is_done]):
            lines = [f"program {task.program}, {task.name}: {task.waits_for}" for task in waiting]
            self.fault = Deadlock("everybody waits:\n" + "\n".join(lines))
        for task in self.tasks:
            if not task.is_done:
                task.turn.release()
                self.back.acquire()
        if self.fault:
            raise self.fault

    def start(self, task: Task) -> Task:
        self.tasks.append(task)
        threading.Thread(target=self._live, args=(task,), daemon=True).start()
        return task

    def _live(self, task: Task) -> None:
        current.machine, current.task = self, task
        try:
            task.turn.acquire()
            if not self.fault:
                with np.errstate(all="ignore"):  # as the device, which computes on with what it gets
                    task.body()
                if task.products:
                    raise Fault(f"{task.name} ends with {len(task.products)} products under way")
                if any(store in self.copies for store in task.stores):
                    raise Fault(f"{task.name} ends before its copies have read shared memory")
        except _Stopped:
            pass
        except BaseException as error:
            self.fault = self.fault or error
        finally:
            task.is_done = True
            self.back.release()

    def pause(self, ready: Callable[[], bool] = lambda: True, waits_for: str = "") -> None:
        """Let others go on, until `ready` and it is this task's turn."""
        task = current.task
        task.ready, task.waits_for, task.polled = ready, waits_for, ()
        self.back.release()
        task.turn.acquire()
        if self.fault or not task.ready():
            raise _Stopped
        task.ready = lambda: True


def machine() -> Machine:
    return current.machine


def task() -> Task:
    return current.task


class Barrier:
    """An mbarrier: a phase ends when all arrivals have come and all bytes that were announced have landed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = self.left = self.bytes = self.phases = 0

    def init(self, count: int) -> None:
        self.count = self.left = int(count)

    def _check_set_up(self) -> None:
        if not self.count:
            raise Fault(f"{self.name} is used before it is initialised")

    def expect(self, size: int) -> None:
        self._check_set_up()
        self.bytes += int(size)
        self.arrive(1)

    def arrive(self, count: int = 1) -> None:
        self._check_set_up()
        self.left -= int(count)
        if self.left < 0:
            raise Fault(f"{self.name}: more arrivals than its count of {self.count} in a phase")
        self._turn()

    def land(self, size: int) -> None:
        self._check_set_up()
        self.bytes -= size
        self._turn()

    def _turn(self) -> None:
        if self.left == 0 and self.bytes == 0:
            self.phases, self.left = self.phases + 1, self.count

    def wait(self, parity: int) -> None:
        """Goes on when the phase of this parity is complete: what hardware tells apart of phases is their parity."""
        self._check_set_up()
        parity = int(parity)
        if parity not in (0, 1):
            raise Fault(f"{self.name}: a wait for parity {parity}")
        text = f"waits for parity {parity} of {self.name}, which has ended {self.phases} phases"
        machine().pause(lambda: self.phases & 1 != parity, f"{text}, lacks {self.left} arrivals and {self.bytes} bytes")
