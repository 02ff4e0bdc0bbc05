"""A package as if on a GPU, whose launches are noted and not made: those by a recipe, and those worked out anew.

No kernel is compiled and no driver asked, so that many kinds of calls can be compared: that the arguments reach the
driver as Triton would hand them on is seen by `launched.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from triton.experimental.gluon._runtime import GluonJITFunction

Results = Sequence[Tensor]


class Noted(NamedTuple):
    """A launch. given: addresses, None, or of descriptors shape, strides, box and address."""

    kernel: Any
    grid: tuple[int, int, int]
    given: list[Any]
    numbers: tuple[float, ...]
    constants: dict[str, Any]
    tensors: tuple[Any, ...] = ()  # what it was given, unless a recipe made it


class Gpu:
    """A GPU of an architecture, with 132 processors, that is there for one package as long as a test lasts."""

    def __init__(self, package: ModuleType, patch: pytest.MonkeyPatch, arch: str = "sm_90") -> None:
        launch = importlib.import_module(f"{package.__name__}.launch")
        modules = [
            importlib.import_module(f"{launch.__name__}.{x.name}") for x in pkgutil.iter_modules(launch.__path__)
        ]
        # a kernel's hash is of all that it calls, which cannot be told where others of these are interpreted
        patch.setattr(GluonJITFunction, "__hash__", object.__hash__)
        for name, found in (("arch", arch), ("processors", 132), ("hashed", None)):
            for module in modules:
                if hasattr(module, name):
                    patch.setattr(module, name, lambda *given, found=found: found)
        parts = ("launch.kept", "launch.descriptors", "launch.boxes", "api.again", "api.recipe")
        self.kept, descriptors, boxes, self.again, recipe = (
            importlib.import_module(f"{package.__name__}.{part}") for part in parts
        )
        self.launches: list[Noted] = []
        self.held: list[Any] = []  # what recipes made and were given: none of it lies where another did
        self.replays, self.left = 0, -1  # launches until one fails
        self._boxes = boxes.Boxes
        launched, call = self._launched, recipe.Recipe.__call__

        def again(own: Any, *given: Any) -> Any:
            self.replays += 1
            self.held.extend(given)
            return call(own, *given)

        patch.setattr(descriptors, "encode", lambda kind, address: (kind.shape, kind.strides, kind.box, address))
        patch.setattr(self.kept.Launch, "__call__", lambda own, *given: launched(own, *given))
        patch.setattr(self.kept, "current_device", lambda: None)
        patch.setattr(self.kept, "stream", lambda device: 0)
        patch.setattr(recipe.Recipe, "__call__", again)
        patch.setattr(recipe, "torch", self._holding())
        patch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        self.forget()

    def forget(self) -> None:
        self.again._recipes.clear()
        self.again._seen.clear()

    def of(self, call: Callable[[], Results], *, anew: bool = False) -> tuple[list[Noted], Results]:
        """The launches of a call, and what it returns; with the recipes that there are, or `anew`, with none."""
        self.launches, before = [], (self.again._recipes, self.again._seen)
        if anew:
            self.again._recipes, self.again._seen = {}, set()
        try:
            found = call()
        finally:
            self.again._recipes, self.again._seen = before
        return self.launches, found

    def why_differing(self, call: Callable[[], Results]) -> str:
        """What the call's recipe does otherwise than the call without one; empty if nothing."""
        self.held = []
        launches, found = self.of(call)
        anew, wanted = self.of(call, anew=True)
        facts = [[(x.shape, x.stride(), x.dtype, x.requires_grad) for x in some] for some in (found, wanted)]
        return differing(anew, launches, wanted, found) or ("results differ" if facts[0] != facts[1] else "")

    def _holding(self) -> Any:
        """`torch`, but that memory that recipes take is held."""

        def empty(*given: Any, **options: Any) -> Tensor:
            self.held.append(torch.empty(*given, **options))
            return self.held[-1]

        def strided(*given: Any, **options: Any) -> Tensor:
            self.held.append(torch.empty_strided(*given, **options))
            return self.held[-1]

        return SimpleNamespace(**{**vars(torch), "empty": empty, "empty_strided": strided})

    def _launched(self, own: Any, kernel: Any, grid: Any, tensors: Any, numbers: Any) -> None:
        """In the place of `Launch.__call__`."""
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        if (recording := self.kept._here.recording) is not None:
            recording.launches.append((own, kernel, grid, tensors, numbers))
        boxes = tuple(box_of(x) for x in tensors if isinstance(x, self._boxes))
        replay = Replay(self, kernel, own.constants, [self._kind(x) for x in tensors], boxes)
        given = [self._told(x) for x in tensors]
        self.launches.append(Noted(kernel, grid, given, tuple(numbers), own.constants, tensors))
        addresses = [x.data_ptr() for n, x in enumerate(tensors) if x is not None and n != own.anywhere]
        if any(address % 16 for address in addresses) or not self.kept.are_usual(numbers):
            return
        if own._kept is not None and own._kept[0] is kernel:
            assert own._kept[1].kinds == replay.kinds, "a launch that was compiled for other types"
        own._kept = kernel, replay

    def _kind(self, x: Any) -> Any:
        return x.tensor.dtype if isinstance(x, self._boxes) else None if x is None else (x.dtype,)

    def _told(self, x: Any) -> Any:
        if isinstance(x, self._boxes):
            return tuple(x.shape), tuple(x.strides), box_of(x), x.data_ptr()
        return None if x is None else x.data_ptr()


class Replay:
    """In the place of a compiled kernel."""

    constants = ()

    def __init__(self, gpu: Gpu, kernel: Any, own: dict[str, Any], kinds: list[Any], boxes: tuple[Any, ...]) -> None:
        self.gpu, self.kernel, self.own, self.kinds, self.boxes = gpu, kernel, own, kinds, boxes

    def __call__(self, grid: Any, stream: int, arguments: Iterable[Any]) -> None:
        rest, given = list(arguments), list[Any]()
        for kind in self.kinds:
            given.append(rest.pop(0))
            if isinstance(kind, torch.dtype):  # shape and strides stand behind a descriptor
                size = len(given[-1][0])
                assert (*rest[:size], *rest[size : 2 * size]) == (*given[-1][0], *given[-1][1])
                del rest[: 2 * size]
        self.gpu.launches.append(Noted(self.kernel, grid, given, tuple(rest), self.own))


def box_of(x: Any) -> tuple[tuple[str, Any], ...]:
    return (("block_size", tuple(x.box)),)


def differing(anew: list[Noted], launches: list[Noted], wanted: Results, found: Results) -> str:
    """In what launches differ from those worked out anew, beside memory of their own; empty if in nothing. `wanted` and
    `found`: what either returned, whose memory must stand in the same places."""
    if len(anew) != len(launches):
        return f"{len(launches)} launches, and not {len(anew)}"
    there = {x.data_ptr(): y.data_ptr() for x, y in zip(wanted, found, strict=True) if x.numel()}
    back = {y: x for x, y in there.items()}
    sizes: dict[int, int] = {}
    for one, two in zip(anew, launches, strict=True):
        name = one.kernel.__name__
        if one[:2] != two[:2] or one[3:5] != two[3:5]:
            return f"{name}: grid, numbers or constants"
        for x, y, told in zip(one.given, two.given, one.tensors, strict=True):
            if isinstance(x, tuple):
                if x[:3] != y[:3]:
                    return f"{name}: a descriptor"
                x, y, told = x[3], y[3], told.tensor
            if not x or not y:  # None, or the address of nothing
                if x != y and (told is None or told.numel()):
                    return f"{name}: something is missing"
                continue
            memory = told.untyped_storage()
            start = memory.data_ptr(), memory.data_ptr() + y - x
            for here, other in ((x, y), start):
                if there.setdefault(here, other) != other or back.setdefault(other, here) != here:
                    return f"{name}: memory of another"
            if x != y:
                sizes[start[1]] = memory.nbytes()
    spans = sorted((start, start + size) for start, size in sizes.items())
    overlap = any(stop > start for (_, stop), (start, _) in pairwise(spans))
    return "what is used meanwhile overlaps" if overlap else ""
