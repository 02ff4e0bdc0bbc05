"""What TMA reads: tensors in boxes. What a descriptor says of a tensor, but for its address, is worked out once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

CHUNK = 64  # columns of a box, of hopper/produce.py
SLOT = 64  # rows of a slot


@dataclass(frozen=True)
class Boxes:
    """A tensor [batch or pages, heads, rows, HEAD_DIM] that is read by TMA, in boxes of so many rows and 64 columns; or
    a vector of float32, in boxes of so many numbers. Where there is a `period`, of rows, a box has so many rows of each
    of several periods, 64 together: the tensor is [batch, heads, periods, rows of one, HEAD_DIM]."""

    tensor: torch.Tensor
    rows: int
    period: int = 0

    @property
    def shape(self) -> list[int]:
        """Periods are whole ones; where there is none, what is said of it is not read."""
        if not self.period:
            return list(self.tensor.shape)
        *before, rows, columns = self.tensor.shape
        return [*before, max(rows // self.period, 1), min(self.period, rows), columns]

    @property
    def strides(self) -> list[int]:
        """Strides of the shape; of dimensions with one entry, whose strides may be anything, some that TMA allows."""
        strides = list(self.tensor.stride())
        if self.period:
            strides.insert(-2, self.period * strides[-2])
        return [*(s if n > 1 else 8 for n, s in zip(self.shape[:-1], strides[:-1], strict=True)), 1]

    @property
    def box(self) -> list[int]:
        if self.tensor.dim() == 1:
            return [self.rows]
        return [1, 1, *([SLOT // self.rows] if self.period else []), self.rows, CHUNK]

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def data_ptr(self) -> int:
        return self.tensor.data_ptr()

    def descriptor(self) -> Any:
        """Triton's own, which it compiles for."""
        from triton.experimental.gluon import language as gl
        from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

        if self.tensor.dim() == 1:
            line = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=1)
            return TensorDescriptor(self.tensor, self.shape, [1], self.box, line)
        layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=len(self.box))
        return TensorDescriptor(self.tensor, self.shape, self.strides, self.box, layout)


class Descriptor:
    """All that Triton asks of a descriptor and its tensor to encode it; it holds no memory."""

    __slots__ = ("address", "shape", "strides")
    padding = "zero"
    round_f32_to_tf32 = False

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], address: int) -> None:
        self.shape, self.strides, self.address = shape, strides, address

    @property
    def base(self) -> Descriptor:
        return self

    def data_ptr(self) -> int:
        return self.address
