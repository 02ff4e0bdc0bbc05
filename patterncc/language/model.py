"""A pattern file as frozen pydantic models: every key outside `shards` (see `shard`), its kind, its default, its
description.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, PrivateAttr
from typing_extensions import TypedDict

from patterncc.errors import Span, counted
from patterncc.language import fields as f
from patterncc.language import limits
from patterncc.language.document import BAD
from patterncc.language.kinds import Keys, ListOf
from patterncc.language.resolved import Resolved
from patterncc.language.selector import Selector
from patterncc.language.shard import Globals, Model, Random, Shard, Shards, Sides, Stride

if TYPE_CHECKING:
    from patterncc.language.resolve import Resolution
    from patterncc.language.shape import Shape


class LayoutEntry(Model):
    """The shards of some layers, and their sizes and sinks where they are not the pattern's."""

    layers: Annotated[Selector, f.SELECTOR] = Field(description="Layers, in the syntax of `heads`.")
    heads: Annotated[int | None, f.HEADS] = Field(
        None, description="Query heads of these layers. Default: the pattern's."
    )
    kv_heads: Annotated[int | None, f.HEADS] = Field(
        None, description="KV heads of these layers. Default: the pattern's where written, else heads."
    )
    head_dim: Annotated[int | None, f.HEAD_DIM] = Field(
        None, description="Width of a head in these layers. Default: the pattern's."
    )
    v_head_dim: Annotated[int | None, f.HEAD_DIM] = Field(
        None, description="Width of a value in these layers. Default: the pattern's where written, else head_dim."
    )
    sinks: Annotated[Literal["learned"] | None, f.SINKS] = Field(
        None, description="learned: the query heads of these layers have a logit of their own. Default: the pattern's."
    )
    shards: Shards = Field(description="The shards of these layers.")


class Promises(TypedDict, total=False):
    """What must be proved whenever the file is compiled."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    coverage: Annotated[
        Literal["layer", "group", "model"],
        f.COVERAGE,
        Field(description="Everything is kept by some head of each layer, of each KV head (group), or of the model."),
    ]
    rows: Annotated[
        Literal["nonempty"], f.ROWS, Field(description="Every row of every head keeps at least one column.")
    ]
    kv: Annotated[
        Literal["monotone", "group"],
        f.KV,
        Field(description="What was dropped is not taken up again, by a head (monotone) or a KV head's union (group)."),
    ]
    reach: Annotated[int, f.REACH, Field(description="From everywhere to everywhere within so many layers.")]


class Pattern(Model):
    """A sparse attention pattern: which blocks of the context each head keeps."""

    pattern: Annotated[int, f.VERSION] = Field(description="Version of the language: 1.")
    name: Annotated[str, f.NAME] = Field(description="Name of the generated module: a Python identifier.")
    about: Annotated[str, f.ABOUT] = Field("", description="One sentence on what the pattern is.")
    heads: Annotated[int, f.HEADS] = Field(description="Query heads of a layer.")
    kv_heads: Annotated[int, f.HEADS] = Field(
        default_factory=lambda data: data.get("heads", BAD),
        description="KV heads of a layer, a divisor of heads. Default: heads.",
    )
    head_dim: Annotated[int, f.HEAD_DIM] = Field(128, description="Width of a head.")
    v_head_dim: Annotated[int, f.HEAD_DIM] = Field(
        default_factory=lambda data: data.get("head_dim", BAD),
        description="Width of a value, and of a head's output. Default: head_dim.",
    )
    layers: Annotated[int, f.LAYERS] = Field(1, description="Layers of the model.")
    block: Annotated[int, f.BLOCK] = Field(description="Tokens of a block.")
    softcap: Annotated[float | None, f.SOFTCAP] = Field(
        None, description="Scores s become softcap * tanh(s / softcap), in every layer. Default: as they are."
    )
    scale: Annotated[float | None, f.SCALE] = Field(
        None, description="What q . k is multiplied by where a call gives no scale. Default: head_dim ** -0.5."
    )
    sinks: Annotated[Literal["learned"] | None, f.SINKS] = Field(
        None,
        description="learned: every query head has a logit of its own in the softmax's sum; callers pass `sinks`.",
    )
    causal: Annotated[bool, f.FLAG] = Field(True, description="A query sees no later key.")
    shards: Shards = Field((), description="What each head keeps, where `dense_layers` and `layouts` name no other.")
    dense_layers: Annotated[Selector | None, f.SELECTOR] = Field(
        None, description="Layers in which every head keeps everything."
    )
    layouts: Annotated[
        tuple[Annotated[LayoutEntry, Keys("`layers: 0-3`")], ...], ListOf("`- layers: 0-3`", limits.MOST_LAYERS)
    ] = Field((), description="Other shards, and other sizes, for other layers.")
    promises: Annotated[Promises | None, Keys("{rows: nonempty}")] = Field(
        None, description="What must be proved on every compilation. Left out: {rows: nonempty}."
    )

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
            from patterncc.language.resolve import raising, resolve

            self._resolution = resolution = resolve(self, self._folder, raising)
            assert resolution is not None  # a mistake would have been raised
        return resolution


MODELS: dict[str | None, type[Model] | type[Promises]] = {
    None: Pattern, "shards": Shard, "layouts": LayoutEntry, "strides": Stride, "globals": Globals,
    "random": Random, "local": Sides, "promises": Promises,
}  # fmt: skip


def keys_of(owner: str | None) -> dict[str, str]:
    """The keys allowed under `owner` (None: at the top), with their descriptions."""
    model = MODELS.get(owner, Pattern)
    if issubclass(model, Model):
        return {field.alias or name: field.description or "" for name, field in model.model_fields.items()}
    return dict.fromkeys(Promises.__annotations__, "")
