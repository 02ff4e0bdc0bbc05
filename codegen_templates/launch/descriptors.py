"""TMA descriptors, encoded once. One holds an address, a shape, strides and a box, and nothing else of a tensor: so it
is right for whatever lies there later, and serves each launch that would encode the same."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .boxes import Boxes, Descriptor

MOST = 4096  # that are kept, of about 300 bytes
Box = tuple[tuple[str, Any], ...]  # what the compiler found of it


class Kind:
    """Shape, strides and box of a descriptor: all but its address. Equal ones are one object."""

    __slots__ = ("box", "shape", "strides")

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], box: Box) -> None:
        self.shape, self.strides, self.box = shape, strides, box


class Encoded(dict[tuple[Kind, int], Any]):
    """Triton's descriptors by kind and address; those that are not there are encoded."""

    def __missing__(self, key: tuple[Kind, int]) -> Any:
        if len(self) >= MOST:
            self.clear()
        self[key] = found = encode(*key)
        return found


encoded = Encoded()
kind = lru_cache(maxsize=1024)(Kind)


def kind_of(x: Boxes, box: Box) -> Kind:
    """The kind of the descriptor of a tensor for a kernel's box."""
    return kind(tuple(x.shape), tuple(x.strides), box)


def as_box(found: dict[str, Any]) -> Box:
    """A tuple of what the compiled kernel's metadata hold about one of its descriptors, to be part of a key."""
    return tuple((name, tuple(x) if isinstance(x, list) else x) for name, x in found.items())


def encode(kind: Kind, address: int) -> Any:
    """The descriptor's bytes, as Triton encodes them for a launch."""
    from triton.backends.nvidia.driver import make_tensordesc_arg as make

    more = (None,) * (make.__code__.co_argcount - 2)  # since Triton 3.7: the launch, which is not looked at
    return make(Descriptor(kind.shape, kind.strides, address), dict(kind.box), *more)[0]
