"""What a cell is about to do that may hang or end its process: told beforehand, so that no other cell does it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class AvoidedError(Exception):
    """A step that hung, or ended its process, in a cell before."""


_avoided: set[str] = set()
_tell: list[Callable[[str], None]] = []


def listen(tell: Callable[[str], None], avoided: set[str]) -> None:
    """From now on each step is told as it begins, and "" as it ends; those of `avoided` are not done."""
    _tell[:] = [tell]
    _avoided.clear()
    _avoided.update(avoided)


@contextmanager
def risky(name: str) -> Iterator[None]:
    """While the step goes on. AvoidedError where it has hung before."""
    if name in _avoided:
        raise AvoidedError(f"{name} hung or ended its process in a cell before")
    for tell in _tell:
        tell(name)
    try:
        yield
    except Exception as error:
        if "CUDA error" in str(error):  # the process ends of it
            raise
        for tell in _tell:
            tell("")
        raise
    for tell in _tell:
        tell("")
