"""Exchanges between ranks that cannot hang: when a rank fails, the ranks that wait for it fail with its message."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, distributed

from ..pattern import NAME

KEY = f"attention_split of {NAME}: failed"
LOOK = 0.2  # seconds between two looks at what other ranks say
LONGEST = 2000  # characters of a message


@dataclass
class Meetings:
    """How often this rank has met the others of a group, and where it failed last; all ranks count alike."""

    count: int = 0
    failed: int = -1


_of: weakref.WeakKeyDictionary[Any, Meetings] = weakref.WeakKeyDictionary()


@contextmanager
def told(group: Any) -> Iterator[None]:
    """A context in which an exception is reported to all ranks of the group."""
    group = group or distributed.group.WORLD
    if group is None:  # there are no ranks, as the body will say
        yield
        return
    meetings = _of.setdefault(group, Meetings())
    before = meetings.count
    try:
        yield
    except Failed:
        raise
    except Exception as error:
        # A rank that failed before it met the others counts the meeting too: so all go on alike, if they go on.
        meetings.failed = meetings.count = max(meetings.count, before + 1)
        text = f"{meetings.failed} {distributed.get_rank(group)} {type(error).__name__}: {error}"
        _try(lambda: _store(group).set(KEY, text[:LONGEST]))
        time.sleep(2 * LOOK)  # the store may end with this process
        raise


def meet(taken: Tensor, sent: Tensor, lengths: list[int], parts: list[int], group: Any) -> None:
    """Exchange parts with all ranks of the group. Raises Failed soon after another rank has failed, or has ended."""
    group = group or distributed.group.WORLD
    meetings = _of.setdefault(group, Meetings())
    meetings.count += 1
    try:
        if taken.device.type != "cpu":  # the device waits, not this process; the group's own timeout ends that
            distributed.all_to_all_single(taken, sent, lengths, parts, group=group)
            return
        work = distributed.all_to_all_single(taken, sent, lengths, parts, group=group, async_op=True)
        pause, look = 2e-5, time.monotonic() + LOOK
        while not work.is_completed():
            time.sleep(pause)
            pause = min(2 * pause, LOOK / 20)
            if time.monotonic() > look:
                look = time.monotonic() + LOOK
                _listen(group, meetings)
        work.wait()
    except Failed:
        meetings.failed = meetings.count
        raise
    except RuntimeError as error:
        meetings.failed = meetings.count
        _listen(group, meetings)
        raise Failed(
            f"{NAME}: rank {distributed.get_rank(group)} could not exchange keys with the others; if one of them has "
            f"failed or ended, its message says why: {error}"
        ) from error


class Failed(RuntimeError):
    """Another rank has failed."""


def _listen(group: Any, meetings: Meetings) -> None:
    """Raise the message of a rank that failed and will not take part in this exchange. If this rank itself failed, that
    was in an earlier exchange."""
    failure = _try(lambda: _store(group).get(KEY) if _store(group).check([KEY]) else b"")
    if failure:
        count, rank, message = failure.decode().split(" ", 2)
        if int(count) >= meetings.count - 1 and int(count) != meetings.failed:
            raise Failed(f"{NAME}: rank {rank} failed, and this one waits for it in vain. It says: {message}")


def _store(group: Any) -> Any:
    """The store through which the ranks of a group exchange messages."""
    return group.get_group_store()


def _try(ask: Callable[[], Any]) -> Any:
    """The result of `ask()`; None when the store is gone, as it may be after a failure."""
    try:
        return ask()
    except (RuntimeError, OSError, AttributeError):
        return None
