"""A checked pattern: what its file says, and what each head of each layer keeps."""

from __future__ import annotations

from pathlib import Path

from pydantic import PrivateAttr

from patterncc.errors import Span, counted
from patterncc.language.resolve import Resolution, raising, resolve
from patterncc.language.resolved import Resolved
from patterncc.language.shape import Shape
from patterncc.language.written import Written


class Pattern(Written):
    """A sparse attention pattern: which blocks of the context each head keeps."""

    _source: str = PrivateAttr("")
    _file: str = PrivateAttr("<text>")
    _folder: Path | None = PrivateAttr(None)
    _places: dict[str, tuple[Span, str]] = PrivateAttr(default_factory=dict)
    _resolution: Resolution | None = PrivateAttr(None)

    @property
    def source(self) -> str:
        """The YAML text."""
        return self._source

    @property
    def file(self) -> str:
        """The YAML file as it was named."""
        return self._file

    def place(self, key: str) -> tuple[Span, str] | None:
        """Where a key stands, and its line; None where it is left out. One of the top level, or `layouts.0.head_dim`
        and the like."""
        return self._places.get(key)

    @property
    def folder(self) -> Path | None:
        """Where the file's masks are looked for."""
        return self._folder

    @property
    def group(self) -> int:
        """Query heads that share one KV head, where a layer has the pattern's own sizes."""
        return self.heads // self.kv_heads

    def shape(self, layer: int) -> Shape:
        """Heads, KV heads and widths of a layer: the pattern's own, or those of its entry of `layouts`."""
        if not 0 <= layer < self.layers:
            raise IndexError(f"layer {layer} of {counted(self.layers, 'layer')}")
        return self._resolved().shapes[layer]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of all layers."""
        return self._resolved().shapes

    def shard(self, layer: int, head: int) -> Resolved:
        """What one head of one layer keeps, every expression evaluated. Equal heads may share one object."""
        if not 0 <= head < self.shape(layer).heads:
            raise IndexError(f"head {head} of layer {layer}, which has {counted(self.shape(layer).heads, 'head')}")
        return self._resolved().shard(layer, head)

    def shards_of(self, layer: int) -> tuple[Resolved, ...]:
        """The shards of all heads of a layer; layers that do not differ share one tuple."""
        if not 0 <= layer < self.layers:
            raise IndexError(f"layer {layer} of {counted(self.layers, 'layer')}")
        return self._resolved().shards_of(layer)

    def _resolved(self) -> Resolution:
        # Read past pydantic's lookup of private attributes, which takes longer than all the rest.
        resolution: Resolution | None = (self.__pydantic_private__ or {})["_resolution"]
        if resolution is None:
            self._resolution = resolution = resolve(self, self._folder, raising)
            assert resolution is not None  # a mistake would have been raised
        return resolution
