"""Shared memory with swizzled layouts, TMA descriptors and copies, products that read operands while they run.

Longer than other files: copies and products look into the same buffers.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .machine import Barrier, Fault, machine, task
from .values import DType, Value, value


@dataclass(frozen=True)
class Layout:
    """A layout in shared memory: `chunk` columns lie side by side, then those of the next row (0: whole rows)."""

    chunk: int = 0
    rank: int = 0


class Buffer:
    """Memory that was allocated once: numbers, which start as NaN."""

    def __init__(self, name: str, size: int, dtype: DType) -> None:
        self.name, self.dtype = name, dtype
        self.numbers = np.full(size, np.nan if dtype.held is np.float32 else 0x5EED, dtype.held)
        self.reading: list[tuple[int, int, Any]] = []  # products under way: from, to, product
        self.landing: list[tuple[int, int, Any]] = []  # copies under way into it
        self.leaving: list[tuple[int, int, Any]] = []  # copies under way out of it

    def check_write(self, start: int, stop: int, what: str) -> None:
        for kind, spans in (
            ("a product reads", self.reading),
            ("a copy lands in", self.landing),
            ("a copy reads", self.leaving),
        ):
            if any(a < stop and start < b for a, b, _ in spans):
                raise Fault(f"{what} writes numbers {start}..{stop} of {self.name} while {kind} them")

    def check_read(self, start: int, stop: int, what: str) -> None:
        if any(a < stop and start < b for a, b, _ in self.landing):
            raise Fault(f"{what} reads numbers {start}..{stop} of {self.name}, which are still on their way")


class View:
    """A shared memory descriptor: a shape at a place of a buffer."""

    def __init__(
        self, buffer: Buffer, start: int, shape: tuple[int, ...], layout: Layout, turned: bool = False
    ) -> None:
        self.buffer, self.start, self.own, self.layout, self.turned = buffer, start, shape, layout, turned
        if start < 0 or start + prod(shape) > len(buffer.numbers):
            raise Fault(f"a view {list(shape)} from number {start} on goes past the end of {buffer.name}")

    @property
    def shape(self) -> list[int]:
        return list(self.own[::-1] if self.turned else self.own)

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype

    @property
    def span(self) -> tuple[int, int]:
        return self.start, self.start + prod(self.own)

    def index(self, n: Any) -> View:
        n = int(n)
        if not 0 <= n < self.own[0]:
            raise Fault(f"{self.buffer.name} has {self.own[0]} parts, not number {n}")
        return View(self.buffer, self.start + n * prod(self.own[1:]), self.own[1:], self.layout)

    def permute(self, order: Any) -> View:
        if tuple(map(int, order)) != (1, 0) or len(self.own) != 2:
            raise NotImplementedError("only matrices are turned")
        return View(self.buffer, self.start, self.own, self.layout, not self.turned)

    def slice(self, start: Any, length: Any, dim: Any = 0) -> View:
        """Some of the columns: those of whole chunks lie side by side, others are read where they are."""
        start, length, columns = int(start), int(length), self.own[-1]
        if int(dim) != 1 or len(self.own) != 2 or self.turned or not 0 <= start <= columns - length:
            raise NotImplementedError("only columns of matrices are taken")
        chunk = self.layout.chunk or columns
        if start % chunk == 0 and length % chunk == 0:
            return View(self.buffer, self.start + start * self.own[0], (self.own[0], length), self.layout)
        return Columns(self, start, length)

    def reinterpret(self, dtype: DType, shape: Any, layout: Layout) -> View:
        shape = tuple(map(int, shape))
        if dtype.bytes != self.dtype.bytes or prod(shape) > prod(self.own):
            raise Fault(f"{self.buffer.name} is not {list(shape)} of {dtype.name}")
        return View(self.buffer, self.start, shape, layout)

    _reinterpret = reinterpret

    def get(self) -> np.ndarray:
        raw = self.buffer.numbers[slice(*self.span)]
        chunk, columns = self.layout.chunk, self.own[-1]
        if chunk and columns > chunk:
            x = raw.reshape(columns // chunk, -1, chunk).swapaxes(0, 1).reshape(self.own)
        else:
            x = raw.reshape(self.own)
        return x.T if self.turned else x

    def put(self, x: np.ndarray) -> None:
        chunk, columns = self.layout.chunk, self.own[-1]
        x = np.broadcast_to(x, self.shape)
        x = x.T if self.turned else x
        if chunk and columns > chunk:
            x = x.reshape(-1, columns // chunk, chunk).swapaxes(0, 1)
        self.buffer.numbers[slice(*self.span)] = x.reshape(-1)

    def load(self, layout: Any = None) -> Value:
        self.buffer.check_read(*self.span, "a load")
        return Value(self.get().copy(), self.dtype)

    def store(self, x: Any) -> None:
        x = value(x)
        if list(x.shape) != self.shape:
            raise Fault(f"a tensor {list(x.shape)} is stored as {self.shape} in {self.buffer.name}")
        self.buffer.check_write(*self.span, "a store")
        self.put(x.x)
        task().unfenced.append((self.buffer, *self.span))
        task().unsynced.append((self.buffer, *self.span))

    def check_fenced(self, what: str) -> None:
        """Whether what plain stores wrote here may be read by copies and products."""
        start, stop = self.span
        for other in machine().tasks:
            if any(b is self.buffer and x < stop and start < y for b, x, y in other.unfenced):
                raise Fault(f"{what} reads {self.buffer.name}, which {other.name} wrote without a fence")


class Columns(View):
    """Some columns of a matrix in shared memory, to be read by products."""

    def __init__(self, whole: View, first: int, count: int) -> None:
        super().__init__(whole.buffer, whole.start, whole.own, whole.layout)
        self.first, self.count = first, count

    @property
    def shape(self) -> list[int]:
        return [self.own[0], self.count]

    def get(self) -> np.ndarray:
        return super().get()[:, self.first : self.first + self.count]

    def put(self, x: np.ndarray) -> None:
        raise NotImplementedError("columns are read")


class Bars:
    """An array of barriers."""

    def __init__(self, name: str, count: int) -> None:
        self.all = [Barrier(f"{name}[{n}]" if count > 1 else name) for n in range(count)]

    def index(self, n: Any) -> Barrier:
        n = int(n)
        if not 0 <= n < len(self.all):
            raise Fault(f"there is no barrier {n} of {len(self.all)}")
        return self.all[n]


class Descriptor:
    """A TMA descriptor of an array of numpy, float32 in the place of 16-bit floats."""

    def __init__(self, array: np.ndarray, box: tuple[int, ...], dtype: DType) -> None:
        if len(box) != array.ndim or any(b > 256 for b in box):
            raise Fault(f"a box {list(box)} of an array {list(array.shape)}")
        self.array, self.box, self.dtype = array, tuple(box), dtype

    @property
    def block_shape(self) -> list[int]:
        return list(self.box)

    @property
    def nbytes_per_cta(self) -> int:
        return prod(self.box) * self.dtype.bytes

    block_type = property(lambda self: self)

    def window(self, at: Any) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The part of the array that a box covers, and where that lies in the box: outside there is nothing."""
        inside, local = [], []
        at = [int(value(x)) for x in at]
        if len(at) != len(self.box):
            raise Fault(f"{len(at)} coordinates for {len(self.box)} dimensions")
        for x, size, length in zip(at, self.box, self.array.shape, strict=True):
            if not -(1 << 31) <= x < 1 << 31:
                raise Fault(f"coordinate {x} does not fit 32 bits")
            low, high = min(max(x, 0), length), max(min(x + size, length), 0)
            inside.append(slice(low, max(low, high)))
            local.append(slice(low - x, max(low, high) - x))
        return tuple(inside), tuple(local)


class Load:
    """A copy from global into shared memory, under way."""

    def __init__(self, source: Descriptor, at: Any, barrier: Barrier, target: View) -> None:
        if prod(target.own) != prod(source.box) or target.own[-len(source.box) :] != source.box:
            raise Fault(f"a box {list(source.box)} does not fit {list(target.own)} of {target.buffer.name}")
        if target.start * target.dtype.bytes % (1024 if target.layout.chunk else 16):
            raise Fault(f"a box lands at byte {target.start * target.dtype.bytes} of {target.buffer.name}: not aligned")
        inside, local = source.window(at)
        if any(
            at_ < 0 or at_ >= n
            for at_, n in list(zip([int(value(x)) for x in at], source.array.shape, strict=True))[:-2]
        ):
            raise Fault(f"a box at {[int(value(x)) for x in at]} of an array {list(source.array.shape)}")
        self.numbers = np.zeros(source.box, np.float32)
        self.numbers[local] = source.array[inside]
        self.barrier, self.target = barrier, target
        target.buffer.check_write(*target.span, "a copy")
        target.buffer.numbers[slice(*target.span)] = np.nan if target.dtype.held is np.float32 else 0
        target.buffer.landing.append((*target.span, self))

    def land(self) -> None:
        self.target.buffer.landing = [x for x in self.target.buffer.landing if x[2] is not self]
        self.target.put(self.numbers)
        self.barrier.land(self.numbers.size * self.target.dtype.bytes)


class Store:
    """A copy from shared into global memory, under way: it reads when it lands."""

    def __init__(self, target: Descriptor, at: Any, source: View) -> None:
        source.buffer.check_read(*source.span, "a copy")
        source.check_fenced("a copy")
        if task().unsynced:
            own = [
                x for x in task().unsynced if x[0] is source.buffer and x[1] < source.span[1] and source.span[0] < x[2]
            ]
            if own:
                raise Fault(f"a copy reads {source.buffer.name}, stored by threads that have not met at a barrier")
        self.target, self.source, self.owner = target, source, task()
        self.inside, self.local = target.window(at)
        source.buffer.leaving.append((*source.span, self))

    def land(self) -> None:
        self.target.array[self.inside] = self.source.get().reshape(self.target.box)[self.local]
        self.source.buffer.leaving = [x for x in self.source.buffer.leaving if x[2] is not self]


class Product:
    """An accumulator that a product is still adding to: operands are read until it is waited for."""

    def __init__(self, a: Any, b: View, acc: Any, use_acc: bool) -> None:
        self.a, self.b, self.acc, self.use_acc, self.done = a, b, acc, use_acc, None
        for x in (a, b):
            if isinstance(x, View):
                x.buffer.check_read(*x.span, "a product")
                x.check_fenced("a product")
                x.buffer.reading.append((*x.span, self))
            elif isinstance(x, Product):
                raise Fault("an operand in registers is the result of a product under way")
        if a.shape[1] != b.shape[0] or list(acc.shape) != [a.shape[0], b.shape[1]]:
            raise Fault(f"{list(a.shape)} times {list(b.shape)} is not {list(acc.shape)}")

    @property
    def shape(self) -> list[int]:
        return list(self.acc.shape)

    dtype = property(lambda self: self.acc.dtype)

    def finish(self) -> Value:
        if self.done is None:
            a, b = (x.get() if isinstance(x, View) else x.x for x in (self.a, self.b))
            acc = self.acc.finish() if isinstance(self.acc, Product) else self.acc
            self.done = Value(a @ b + (acc.x if self.use_acc else 0.0), acc.dtype)
            for x in (self.a, self.b):
                if isinstance(x, View):
                    x.buffer.reading = [r for r in x.buffer.reading if r[2] is not self]
            self.a = self.b = self.acc = None if self.done is None else self.done
        return self.done

    def _refuse(self, *_others: Any) -> Any:
        raise Fault("computing with an accumulator whose product has not been waited for")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __neg__ = __getitem__ = _refuse
    to = _refuse
