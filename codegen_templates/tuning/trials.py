"""The trials of each direction: a call to time, and short calls that are compared with fp64 attention."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..api.dispatch import default_scale
from ..api.ops import attention
from ..api.ops_paged import attention_paged, decode
from ..api.ops_varlen import attention_varlen
from ..pattern import CLASS_OF, HEAD_DIM, HEADS, KV_HEADS, NEEDS_SINKS, V_HEAD_DIM
from ..rules.heads import SHARE
from ..rules.masks import dense_mask

MOST_LAYERS = 4  # kinds of layers whose time counts
DECODED = 8  # requests that decode at once, for each one of the batch
PAGE = 16
TOLERANCE = {  # by norm, relative to fp64 of the same numbers
    torch.float32: 1e-5,  # some hundreds of sums; the GPU's exp2 and log2 are approximate
    torch.float16: 2e-3,  # weights and results are rounded to 11 bits
    torch.bfloat16: 1e-2,  # to 8 bits
}
TF32_TOLERANCE = 2e-3  # factors are rounded to 11 bits

Results = tuple[Tensor, ...]
Call = Callable[[], Results]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Check = tuple[Call, Results]  # a call and what it must give


@dataclass(frozen=True)
class Shape:
    """Size and dtype of the timed call."""

    length: int
    batch: int
    dtype: torch.dtype
    device: torch.device

    def tensors(self, length: int, batch: int) -> list[Tensor]:
        """q, k, v and a gradient of the output, [batch, heads or KV heads, length, their width]."""
        draw = torch.Generator(self.device).manual_seed(length)
        widths = (HEADS, HEAD_DIM), (KV_HEADS, HEAD_DIM), (KV_HEADS, V_HEAD_DIM), (HEADS, V_HEAD_DIM)
        shapes = [(batch, heads, length, width) for heads, width in widths]
        return [torch.randn(s, dtype=self.dtype, device=self.device, generator=draw) for s in shapes]

    def empty(self) -> Tensor:
        """A tensor of this kind."""
        return torch.empty(1, dtype=self.dtype, device=self.device)

    @property
    def tolerance(self) -> float:
        is_tf32 = self.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
        return TF32_TOLERANCE if is_tf32 and self.device.type == "cuda" else TOLERANCE[self.dtype]


@dataclass(frozen=True)
class Trial:
    """One kind of layer: how many are of it, the call to time, the check before it and those before it is stored."""

    layers: int
    timed: Call
    first: Check
    rest: tuple[Check, ...]


def layer_kinds() -> list[tuple[int, int]]:
    """A layer of each kind and how many there are, the most frequent kinds first. The rarer ones count for nothing, but
    one is there for each kernel that those before do not launch: a configuration must fit all."""
    from ..kernels.row_map import STRIDES
    from ..launch.arrays import group_size

    kinds, launched = [], set()
    for number, (classes, count) in enumerate(Counter(filter(None, CLASS_OF)).most_common()):
        strides = tuple(any(stride[klass] for klass in classes) for stride in STRIDES)
        kernels = group_size(tuple(classes), 0), strides
        if number < MOST_LAYERS or kernels not in launched:
            kinds.append((CLASS_OF.index(classes), count if number < MOST_LAYERS else 0))
        launched.add(kernels)
    return kinds


def trials(direction: str, shape: Shape, layers: list[tuple[int, int]], short: int) -> list[Trial]:
    """One trial for each of `layers`; `short` is the length at which results are compared with fp64."""
    long = shape.tensors(shape.length, shape.batch * (DECODED if direction == "decode" else 1))
    little = shape.tensors(short, 1)
    rows = 1 if direction == "decode" else short
    made = []
    for layer, count in layers:
        mask = dense_mask(rows, short, layer=layer).to(shape.device)
        if direction == "decode":
            exact = _dense(little[0][:, :, -1:].double(), *(x.double() for x in little[1:3]), mask)
            made.append(Trial(count, _decoding(layer, long), (_decoding(layer, little), (exact,)), ()))
            continue
        exact = _call(direction, partial(_dense, mask=mask), [x.double() for x in little])()
        first, *rest = ((_call(direction, way, little), exact) for way in _ways(direction, layer))
        made.append(Trial(count, _call(direction, _ways(direction, layer)[0], long), first, tuple(rest)))
    return made


def _no_sinks(q: Tensor, heads: int) -> Tensor | None:
    """Sinks of -inf, which change nothing, where the pattern asks for sinks; `heads` is q's dimension of heads."""
    return torch.full((q.shape[heads],), -math.inf, device=q.device) if NEEDS_SINKS else None


def error(found: Results, wanted: Results) -> float:
    """The largest of the results' errors by norm, relative to what is wanted; infinite for NaN and infinities."""
    errors = [0.0]
    for x, y in zip(found, wanted, strict=True):
        wide = torch.promote_types(y.dtype, torch.float32)
        difference, size = (x.to(wide) - y.to(wide)).norm(), y.to(wide).norm()
        errors.append(float(difference / size) if size else float(difference))
    return max(e if math.isfinite(e) else math.inf for e in errors)


def _ways(direction: str, layer: int) -> list[Attend]:
    """The functions that launch the kernel of a direction, all like `attention` on one request of as many queries as
    keys: the kernel is another one for each of them, and a configuration must fit them all."""

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, layer=layer, sinks=_no_sinks(q, 1))  # type: ignore[return-value]

    def packed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        starts = _ints([0, q.shape[2]], q.device)
        tensors = [x[0].transpose(0, 1) for x in (q, k, v)]
        out = attention_varlen(*tensors, starts, starts, q.shape[2], q.shape[2], layer=layer, sinks=_no_sinks(q, 1))
        return out.transpose(0, 1)[None]  # type: ignore[union-attr]

    def paged(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        lengths, starts = _ints([k.shape[2]], q.device), _ints([0, q.shape[2]], q.device)
        out = attention_paged(q[0].transpose(0, 1), *_pages(k, v), lengths, starts, layer=layer, sinks=_no_sinks(q, 1))
        return out.transpose(0, 1)[None]  # type: ignore[union-attr]

    return [plain, packed, paged] if direction == "forward" else [plain, packed]


def _call(direction: str, attend: Attend, tensors: list[Tensor]) -> Call:
    """The output of `attend`, or dq, dk and dv."""
    *inputs, dout = tensors
    if direction == "forward":
        return lambda: (attend(*inputs),)
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = attend(*leaves)
    return lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True)


def _decoding(layer: int, tensors: list[Tensor]) -> Call:
    """The output for the last query of each request."""
    q, k, v, _ = tensors
    newest = q[:, :, -1:].transpose(1, 2)
    cache = *_pages(k, v), _ints([k.shape[2]] * len(k), k.device)
    return lambda: (decode(newest, *cache, layer=layer, sinks=_no_sinks(newest, 2)).transpose(1, 2),)  # type: ignore[union-attr]


def _dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention under bool [heads, rows, keys]; 0 for a row without any key."""
    k, v = (x.repeat_interleave(SHARE, 1) for x in (k, v))
    empty = ~mask.any(-1, keepdim=True)
    scores = (q @ k.mT * default_scale(None)).masked_fill(~mask, -math.inf).masked_fill(empty, 0.0)
    return scores.softmax(-1).masked_fill(empty, 0.0) @ v


def _pages(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Caches [pages, PAGE, kv_heads, their width], the last page first, and the table [requests, pages]."""
    count, length = k.shape[0], k.shape[2]
    pages = -(-length // PAGE)
    padded = [torch.nn.functional.pad(x.transpose(1, 2), (0, 0, 0, 0, 0, pages * PAGE - length)) for x in (k, v)]
    k_cache, v_cache = (x.reshape(count * pages, PAGE, *x.shape[2:]).flip(0) for x in padded)
    table = torch.arange(count * pages, dtype=torch.int32, device=k.device).flip(0).view(count, pages)
    return k_cache, v_cache, table


def _ints(numbers: list[int], device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=device)
