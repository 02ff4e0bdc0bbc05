"""The kinds of values that callers pass: a mistake names the argument, what was given, and what is expected."""

from __future__ import annotations

import math
import operator
import reprlib
from typing import Any

import torch
from torch import Tensor

MOST_TOKENS = (1 << 31) - 1  # positions are 32 bits wide in kernels
MOST_ENTRIES = 1 << 16  # sequences of a batch, ranks of a group: what is kept of each is kept on the host


def check_tensors(**given: Any) -> None:
    """Tensors with strides: no arrays, no lists, nothing sparse or nested."""
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} is a torch.Tensor; got {described(x)}{_instead(x)}")
        if x.layout is not torch.strided or x.is_nested:
            raise TypeError(f"{name} must be a dense tensor; it is {'nested' if x.is_nested else _short(x.layout)}")


def whole(name: str, x: Any, least: int = -MOST_TOKENS - 1, most: int = MOST_TOKENS) -> int:
    """A whole number as an int, within bounds; while a graph is made for all of them, bounds are not looked at."""
    if type(x) is not int:
        if isinstance(x, torch.SymInt):
            return x  # type: ignore[return-value]
        x = _index(name, x)
    if not torch.compiler.is_compiling() and not least <= x <= most:
        raise ValueError(f"{name} is a whole number from {least:,} to {most:,}; got {x}")
    return x


def number(name: str, x: Any) -> float:
    """A finite number as a float. A tensor's gradient would be lost, so it is refused where there are gradients."""
    if isinstance(x, Tensor):
        if x.dim() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(f"{name} is a number; got {described(x)}")
        if x.requires_grad and torch.is_grad_enabled():
            raise TypeError(f"{name} is a number, and has no gradient: multiply q by the tensor, with {name}=1.0")
    elif type(x) is not float and type(x) is not int:
        if isinstance(x, torch.SymFloat | torch.SymInt):
            return x  # type: ignore[return-value]
        if isinstance(x, bool) or not (hasattr(type(x), "__float__") or hasattr(type(x), "__index__")):
            raise TypeError(f"{name} is a number; got {described(x)}")
    x = float(x)
    if not torch.compiler.is_compiling() and not math.isfinite(x):
        raise ValueError(f"{name} is a finite number; got {x}")
    return x


def check_dtype(dtype: Any, known: tuple[torch.dtype, ...]) -> None:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype is a torch.dtype, like torch.bfloat16; got {described(dtype)}")
    if dtype not in known:
        raise TypeError(f"dtype is {_short(dtype)}; float32, float16 and bfloat16 are supported")


def check_device(device: Any) -> None:
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device is one of torch's, like 'cuda' or 'cpu'; got {described(device)}") from error


def counted(number: int, what: str, many: str | None = None) -> str:
    """How many of a thing; `many` is the word for several where it is not `what` with an s.

    >>> counted(1, "KV head"), counted(131072, "token"), counted(2, "entry", "entries")
    ('1 KV head', '131,072 tokens', '2 entries')
    """
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def numbered(what: str, number: int) -> str:
    """The numbers of so many things, counted from 0.

    >>> numbered("layer", 4), numbered("head", 1)
    ('layers 0 to 3', 'head 0 only')
    """
    return f"{what} 0 only" if number == 1 else f"{what}s 0 to {number - 1}"


def described(x: Any) -> str:
    """A value in a message: what it is, and of which kind.

    >>> described(1.5), described(None), described([0, 4]), described(torch.zeros(2, 3))
    ('1.5 (float)', 'None', '[0, 4] (list)', 'a tensor [2, 3] of float32')
    """
    if x is None or isinstance(x, bool):
        return repr(x)
    if isinstance(x, Tensor):
        return f"a tensor {list(x.shape)} of {_short(x.dtype)}"
    if hasattr(x, "shape"):
        return f"{type(x).__module__}.{type(x).__name__} {list(x.shape)}"
    text = reprlib.repr(x)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(x).__name__})"


def _index(name: str, x: Any) -> int:
    try:
        if isinstance(x, bool) or (isinstance(x, Tensor) and x.dtype == torch.bool):
            raise TypeError
        return operator.index(x)
    except TypeError:
        raise TypeError(f"{name} is a whole number; got {described(x)}") from None


def _instead(x: Any) -> str:
    if type(x).__module__ == "numpy":
        return ": use torch.from_numpy"
    return ": use torch.tensor" if isinstance(x, list | tuple) else ""


def _short(thing: object) -> str:
    return str(thing).removeprefix("torch.")
