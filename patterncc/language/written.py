"""A pattern file as it is written: every key outside `shards` (see `shard`), its kind, its default, its description, as
frozen pydantic models.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from patterncc.language import fields as f
from patterncc.language import limits
from patterncc.language.document import BAD
from patterncc.language.kinds import Keys, ListOf
from patterncc.language.selector import Selector
from patterncc.language.shard import Globals, Model, Random, Shard, Shards, Sides, Stride


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


class Written(Model):
    """The keys of a file."""

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


MODELS: dict[str | None, type[Model] | type[Promises]] = {
    None: Written, "shards": Shard, "layouts": LayoutEntry, "strides": Stride, "globals": Globals,
    "random": Random, "local": Sides, "promises": Promises,
}  # fmt: skip


def keys_of(owner: str | None) -> dict[str, str]:
    """The keys allowed under `owner` (None: at the top), with their descriptions."""
    model = MODELS.get(owner, Written)
    if issubclass(model, Model):
        return {field.alias or name: field.description or "" for name, field in model.model_fields.items()}
    return dict.fromkeys(Promises.__annotations__, "")
