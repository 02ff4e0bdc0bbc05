"""Stand-ins for `triton.language`, for Gluon's language and its Hopper functions, while kernels are emulated.

One list, longer than other files.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from .atomics import atomic_add, atomic_xchg, check_apart
from .machine import Barrier, Fault, Task, current, machine, task
from .memory import Bars, Buffer, Descriptor, Layout, Load, Product, Store, View
from .values import BFLOAT16, FLOAT16, FLOAT32, INT1, INT16, INT32, INT64, UINT32, DType, Value, common, value

SHARED_BYTES = 232448  # 227 KiB: what a program may have on sm_90


class ConstInt(int):
    value = property(int)


class ConstFloat(float):
    value = property(float)


def constexpr(x: Any) -> Any:
    return ConstInt(x) if isinstance(x, int) else ConstFloat(x) if isinstance(x, float) else x


class Pointer:
    """Addresses in an array of numbers in global memory."""

    def __init__(self, array: np.ndarray, dtype: DType, offset: Any = 0) -> None:
        self.array, self.element, self.offset = array.reshape(-1), dtype, value(offset)
        if array.size and not np.shares_memory(self.array, array):
            raise ValueError("an array that is not contiguous")

    @property
    def dtype(self) -> Any:
        return SimpleNamespace(element_ty=self.element)

    shape = property(lambda self: self.offset.shape)

    def __add__(self, other: Any) -> Pointer:
        return Pointer(self.array, self.element, self.offset.to(INT64) + value(other).to(INT64))

    __radd__ = __add__

    def __getitem__(self, key: Any) -> Pointer:
        return Pointer(self.array, self.element, self.offset[key])

    def places(self, mask: Any) -> tuple[np.ndarray, np.ndarray]:
        """The numbers that are meant, and which of them are in use; Fault where one is not there."""
        shape = np.broadcast_shapes(self.offset.shape, value(True if mask is None else mask).shape)
        at = np.broadcast_to(self.offset.x, shape)
        used = np.broadcast_to(value(True if mask is None else mask).x.astype(bool), shape)
        if np.any(used & ((at < 0) | (at >= self.array.size))):
            raise Fault(f"an address out of bounds: {at[used].min()}..{at[used].max()} of {self.array.size}")
        return at, used


def load(pointer: Pointer, mask: Any = None, other: Any = 0, **_hints: Any) -> Value:
    at, used = pointer.places(mask)
    check_apart(pointer.array, at[used], "a load of")
    return Value(np.where(used, pointer.array[np.where(used, at, 0)], value(other).x), pointer.element)


def store(pointer: Pointer, x: Any, mask: Any = None, **_hints: Any) -> None:
    at, used = pointer.places(mask)
    check_apart(pointer.array, at[used], "a store to")
    pointer.array[at[used]] = np.broadcast_to(value(x).x, at.shape)[used]


def where(condition: Any, a: Any, b: Any) -> Value:
    a, b, dtype = common(a, b)
    return Value(np.where(value(condition).x, a.x, b.x), dtype)


def maximum(a: Any, b: Any) -> Value:
    a, b, dtype = common(a, b)
    return Value(np.fmax(a.x, b.x) if dtype is FLOAT32 else np.maximum(a.x, b.x), dtype)


def minimum(a: Any, b: Any) -> Value:
    a, b, dtype = common(a, b)
    return Value(np.fmin(a.x, b.x) if dtype is FLOAT32 else np.minimum(a.x, b.x), dtype)


def _of(f: Any) -> Any:
    def apply(x: Any) -> Value:
        return Value(f(value(x).x), value(x).dtype)

    return apply


def _reduce(f: Any, default: int | None = None) -> Any:
    def reduce(x: Any, axis: int | None = default, **_named: Any) -> Value:
        x = value(x)
        return Value(f(x.x, axis=axis), INT32 if x.dtype is INT1 and f is np.sum else x.dtype)

    return reduce


def emulated_range(*bounds: Any, **_hints: Any) -> Any:
    return (Value(n, INT32) for n in range(*(int(value(b)) for b in bounds)))


def nothing(*_args: Any, **_named: Any) -> None:
    return None


def static_assert(condition: Any, message: str = "") -> None:
    if not condition:
        raise Fault(f"static assertion: {message}")


def program_id(axis: int) -> Value:
    return Value(current.task.place[axis], INT32)


def num_programs(axis: int) -> Value:
    return Value(current.task.grid[axis], INT32)


def allocate_shared_memory(dtype: DType, shape: Any, layout: Any, value: Any = None) -> Any:
    shape = tuple(map(int, shape))
    own = task()
    own.shared += int(np.prod(shape)) * dtype.bytes
    if own.shared > SHARED_BYTES:
        raise Fault(f"a program has {own.shared} bytes of shared memory, of {SHARED_BYTES}")
    own.allocated += 1
    name = f"shared memory {own.allocated} {list(shape)}"
    if layout == "barrier":
        return Bars(f"barrier {own.allocated}", shape[0])
    view = View(Buffer(name, int(np.prod(shape)), dtype), 0, shape, layout or Layout())
    if value is not None:
        view.store(value)
    return view


def nvmma_shared(swizzle_byte_width: int = 128, element_bitwidth: int = 16, rank: int = 2, **_named: Any) -> Layout:
    return Layout(swizzle_byte_width * 8 // element_bitwidth, rank)


def warp_specialize(parts: Any, worker_num_warps: Any, worker_num_regs: Any = None) -> None:
    own = task()
    if len(parts) != len(worker_num_warps) + 1:
        raise Fault("as many warps as workers")
    workers = []
    for number, (function, args) in enumerate(parts[1:], 1):
        name = f"partition {number} ({function.__name__})"
        worker = Task(name, own.program, lambda function=function, args=args: function(*args))
        worker.place, worker.grid, worker.shared, worker.allocated = own.place, own.grid, 0, 0
        workers.append(machine().start(worker))
    function, args = parts[0]
    function(*args)
    machine().pause(lambda: all(worker.is_done for worker in workers), "waits for the other partitions to end")


def barrier(*_args: Any, **_named: Any) -> None:
    task().unsynced.clear()
    task().unmet = 0


def fence_async_shared(*_args: Any, **_named: Any) -> None:
    task().unfenced.clear()


def warpgroup_mma(a: Any, b: Any, acc: Any, *, use_acc: Any = True, is_async: bool = False, **_named: Any) -> Any:
    product = Product(a, b, acc, bool(use_acc))
    task().products.append(product)
    return product if is_async else warpgroup_mma_wait(0, deps=(product,))


def warpgroup_mma_wait(num_outstanding: int = 0, deps: Any = None) -> Any:
    machine().pause()
    own = task()
    while len(own.products) > num_outstanding:
        own.products.pop(0).finish()
    done = tuple(x.done if isinstance(x, Product) and x.done is not None else x for x in deps)
    return done[0] if len(done) == 1 else done


def _expect(bar: Barrier, size: Any, pred: Any = True) -> None:
    if pred:
        bar.expect(size)


def _arrive(bar: Barrier, *, count: Any = 1, pred: Any = True) -> None:
    machine().pause()
    if pred:
        bar.arrive(count)


def _wait(bar: Barrier, phase: Any, pred: Any = True, deps: Any = ()) -> None:
    if pred:
        bar.wait(value(phase))


def _load_box(descriptor: Descriptor, at: Any, bar: Barrier, target: View, pred: Any = True) -> None:
    if pred:
        machine().copies.append(Load(descriptor, at, bar, target))


def _store_box(descriptor: Descriptor, at: Any, source: View) -> None:
    copy = Store(descriptor, at, source)
    task().stores.append(copy)
    machine().copies.append(copy)


def _store_wait(pendings: int) -> None:
    own = task()
    machine().pause(
        lambda: sum(copy in machine().copies for copy in own.stores) <= int(pendings), "waits for its copies to be read"
    )


def _layout(*_args: Any, **_named: Any) -> None:
    return None


def to_value(x: Any) -> Value:
    return value(x)


LANGUAGE: dict[str, Any] = {
    "constexpr": constexpr, "int1": INT1, "int16": INT16, "int32": INT32, "int64": INT64, "uint32": UINT32,
    "float16": FLOAT16, "bfloat16": BFLOAT16, "float32": FLOAT32, "load": load, "store": store,
    "atomic_add": atomic_add, "atomic_xchg": atomic_xchg, "where": where, "maximum": maximum, "minimum": minimum,
    "exp2": _of(np.exp2), "log2": _of(np.log2), "exp": _of(np.exp), "log": _of(np.log), "abs": _of(np.abs),
    "max": _reduce(np.max), "min": _reduce(np.min), "sum": _reduce(np.sum), "xor_sum": _reduce(np.bitwise_xor.reduce),
    "arange": lambda low, high, layout=None: Value(np.arange(int(low), int(high)), INT32),
    "zeros": lambda shape, dtype, layout=None: Value(np.zeros(tuple(map(int, shape))), dtype),
    "full": lambda shape, x, dtype, layout=None: Value(np.full(tuple(map(int, shape)), value(x).x), dtype),
    "cast": lambda x, dtype: value(x).to(dtype), "to_tensor": to_value,
    "expand_dims": lambda x, axis: Value(np.expand_dims(x.x, axis), x.dtype),
    "reshape": lambda x, shape: Value(x.x.reshape(tuple(map(int, shape))), x.dtype),
    "convert_layout": lambda x, layout, assert_trivial=False: x, "set_auto_layout": lambda x, layout: x,
    "join": lambda a, b: Value(np.stack([a.x, b.x], -1), a.dtype), "trans": lambda x: x.T,
    "range": emulated_range, "static_range": lambda *bounds: range(*map(int, bounds)), "static_assert": static_assert,
    "condition": lambda x, disable_licm=False: x,
    "program_id": program_id, "num_programs": num_programs, "multiple_of": lambda x, n: x, "assume": nothing,
    "cdiv": lambda a, b: (a + b - 1) // b,
    "allocate_shared_memory": allocate_shared_memory, "warp_specialize": warp_specialize, "barrier": barrier,
    "thread_barrier": barrier, "NVMMASharedLayout": nvmma_shared, "SwizzledSharedLayout": lambda *a, **k: Layout(),
    "NVMMADistributedLayout": _layout, "SliceLayout": _layout, "DotOperandLayout": _layout, "BlockedLayout": _layout,
    "DistributedLinearLayout": _layout, "AutoLayout": _layout, "shared_memory_descriptor": View,
}  # fmt: skip
MBARRIER = {"init": lambda bar, count: bar.init(count), "expect": _expect, "arrive": _arrive, "wait": _wait,
            "invalidate": nothing, "MBarrierLayout": lambda *a: "barrier"}  # fmt: skip
TMA = {
    "3.6": {"async_copy_global_to_shared": _load_box, "async_copy_shared_to_global": _store_box},
    "3.9": {"async_load": _load_box, "async_store": _store_box},
}
