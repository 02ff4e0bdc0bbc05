"""Numbers as Triton computes them: integers of 32 or 64 bits that wrap and divide towards zero, tensors of float32."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DType:
    """A number type; 16-bit floats are held as float32, only their size is that of the device."""

    name: str
    bytes: int
    held: type

    @property
    def primitive_bitwidth(self) -> int:
        return 8 * self.bytes


INT1, INT16, INT32 = DType("int1", 1, np.bool_), DType("int16", 2, np.int16), DType("int32", 4, np.int32)
INT64, UINT32 = DType("int64", 8, np.int64), DType("uint32", 4, np.uint32)
FLOAT16, BFLOAT16 = DType("float16", 2, np.float32), DType("bfloat16", 2, np.float32)
FLOAT32 = DType("float32", 4, np.float32)
RANK = {t.name: n for n, t in enumerate((INT1, INT16, INT32, UINT32, INT64, FLOAT16, BFLOAT16, FLOAT32))}


class Value:
    """A tensor, or a scalar of no dimensions."""

    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, x: Any, dtype: DType | None = None) -> None:
        self.dtype = dtype or _dtype(x)
        self.x = np.asarray(x) if self.dtype is INT16 else np.asarray(x, dtype=self.dtype.held)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    @property
    def T(self) -> Value:
        return Value(self.x.T, self.dtype)

    def to(self, dtype: DType, bitcast: bool = False) -> Value:
        """Another type. 16-bit floats seen as integers stay what they are: they are moved, not computed with."""
        if bitcast and self.dtype.bytes != dtype.bytes:
            raise TypeError(f"a bitcast from {self.dtype.name} to {dtype.name}")
        return Value(self.x if bitcast else self.x.astype(dtype.held), dtype)

    def __getitem__(self, key: Any) -> Value:
        if not all(k is None or k == slice(None) for k in (key if isinstance(key, tuple) else (key,))):
            raise TypeError("a tensor is indexed with : and None only")
        return Value(self.x[key], self.dtype)

    def __bool__(self) -> bool:
        if self.x.ndim:
            raise TypeError("a tensor as a condition")
        return bool(self.x)

    def __index__(self) -> int:
        if self.x.ndim or self.dtype.held not in (np.int32, np.int64, np.uint32):
            raise TypeError(f"not a whole number: {self!r}")
        return int(self.x)

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.x)

    def __repr__(self) -> str:
        return f"Value({self.x!r}, {self.dtype.name})"


def _dtype(x: Any) -> DType:
    if isinstance(x, bool):
        return INT1
    if isinstance(x, int):
        return INT32 if -(1 << 31) <= x < 1 << 31 else INT64
    if isinstance(x, float):
        return FLOAT32
    kind = np.asarray(x).dtype
    for dtype in (INT1, INT32, INT64, UINT32, FLOAT32):
        if kind == dtype.held:
            return dtype
    raise TypeError(f"no type of Triton for {kind}")


def value(x: Any) -> Value:
    if isinstance(x, Value):
        return x
    return _whole(x, type(x), None) if isinstance(x, int) else Value(x)


@lru_cache(1 << 12)
def _whole(n: int, _kind: type, dtype: DType | None) -> Value:
    """A number that kernels name again and again; True is not 1."""
    made = Value(n, dtype)
    made.x.flags.writeable = False
    return made


def _beside(n: Any, dtype: DType) -> Value:
    """A number of Python beside a value of this type: of the same one, where that can hold it."""
    if isinstance(n, int):
        fits = dtype is not INT1 and (-(1 << 31) <= n < 1 << 31)
        return _whole(n, type(n), dtype if fits else None)
    return Value(n, dtype if RANK[dtype.name] > RANK["int64"] else None)


def common(a: Any, b: Any) -> tuple[Value, Value, DType]:
    """Both as values of their common type. A number of Python takes the other's type, where that can hold it."""
    if not isinstance(b, Value):
        b = _beside(b, a.dtype) if isinstance(a, Value) and isinstance(b, int | float) else value(b)
    if not isinstance(a, Value):
        a = _beside(a, b.dtype) if isinstance(a, int | float) else value(a)
    return a, b, a.dtype if RANK[a.dtype.name] >= RANK[b.dtype.name] else b.dtype


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if np.any(y == 0):
        raise ZeroDivisionError("integer division by zero")
    if x.dtype == np.bool_:
        raise TypeError("division of truth values")
    quotient = np.abs(x) // np.abs(y)
    return np.where((x < 0) != (y < 0), -quotient, quotient).astype(x.dtype)


def _remain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x - _divide(x, y) * y).astype(x.dtype)


def _true(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) / y.astype(np.float32)


ARITHMETIC = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": _divide, "mod": _remain,
              "and": operator.and_, "or": operator.or_, "xor": operator.xor, "lshift": operator.lshift,
              "rshift": operator.rshift}  # fmt: skip
COMPARE = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq,
           "ne": operator.ne}  # fmt: skip


def _compute(f: Any, a: Any, b: Any, result: DType | None = None) -> Value:
    a, b, dtype = common(a, b)
    if dtype is INT1 and f in (operator.add, operator.sub, operator.mul):
        dtype = INT32
    if dtype.held is np.float32 and f in (_divide, _remain):
        raise TypeError("// and % are for whole numbers")
    x, y = (v.x if v.dtype.held is dtype.held else v.x.astype(dtype.held) for v in (a, b))
    return Value(f(x, y), result or (FLOAT32 if f is _true else dtype))


def _install() -> None:
    for name, f in ARITHMETIC.items():
        setattr(Value, f"__{name}__", lambda a, b, f=f: _known(a, b, f, False))
        setattr(Value, f"__r{name}__", lambda a, b, f=f: _known(a, b, f, True))
    for name, f in COMPARE.items():
        setattr(Value, f"__{name}__", lambda a, b, f=f: _compute(f, a, b, INT1))
    Value.__truediv__ = lambda a, b: _compute(_true, a, b)  # type: ignore[attr-defined]
    Value.__rtruediv__ = lambda a, b: _compute(_true, b, a)  # type: ignore[attr-defined]
    Value.__neg__ = lambda a: Value(-a.x, a.dtype)  # type: ignore[attr-defined]
    Value.__invert__ = lambda a: Value(~a.x, a.dtype)  # type: ignore[attr-defined]


def _known(a: Value, b: Any, f: Any, is_turned: bool) -> Any:
    if not isinstance(b, Value | bool | int | float | np.generic):
        return NotImplemented
    return _compute(f, b, a) if is_turned else _compute(f, a, b)


_install()
