"""An entry of `shards`, what some heads keep, as frozen pydantic models: its parts, their keys and descriptions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from patterncc.language import fields as f
from patterncc.language import limits
from patterncc.language import quantities as q
from patterncc.language.expression import Expression
from patterncc.language.kinds import Given, Keys, ListOf
from patterncc.language.quantities import Length
from patterncc.language.selector import Selector

OFFSET = "Where a run begins, below {}; an expression is taken modulo it; a list cycles over the entry's heads."

Offsets = Annotated[tuple[Annotated[Expression, q.NUMBER], ...], ListOf("[0, 3, 5]", limits.MOST_HEADS, single=True)]
IndexList = Annotated[tuple[Annotated[q.Indices, q.INDEX], ...], ListOf("[0, 5-7]", limits.MOST_INDICES)]


class Model(BaseModel):
    """What may stand below a key: these keys and no others, nothing coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, defer_build=True)


class Sides(Model):
    """How far a window reaches to each side, in a pattern that is not causal."""

    before: Annotated[Length | None, q.LENGTH] = Field(
        None, description='Reach to earlier keys, the own block counted: blocks, or "N tokens". Default: 1.'
    )
    after: Annotated[Length | None, q.LENGTH] = Field(
        None, description='Reach to later keys, the own block counted: blocks, or "N tokens". Default: 1.'
    )


class Stride(Model):
    """Column j is kept when (j - offset) mod every < width; with `anchor: query`, i - j stands for j."""

    every: Annotated[Expression, q.POSITIVE] = Field(description="One run of kept columns in so many blocks.")
    offset: Offsets = Field((), description=OFFSET.format("every"))
    width: Annotated[Expression | None, q.POSITIVE] = Field(
        None, description="Columns in a run, at most `every`. Default: 1."
    )
    anchor: Annotated[Literal["key", "query"], f.ANCHOR] = Field(
        "key", description="Count from the first key block (key), or back from the row (query)."
    )
    distance_from: Annotated[Length | None, q.SINK] = Field(
        None,
        alias="from",
        description='Only at distances |i - j| from so many blocks on, or "N tokens". Default: 0.',
    )
    distance_to: Annotated[Length | None, q.LENGTH] = Field(
        None, alias="to", description='Only at distances |i - j| below so many blocks, or "N tokens". Default: any.'
    )


class Globals(Model):
    """Rows that keep every column, and columns that every row keeps."""

    rows: IndexList = Field((), description="Query blocks that keep every column.")
    columns: IndexList = Field((), description="Key blocks that every row keeps.")


class Random(Model):
    """Columns drawn anew for each row, the same on every machine and for every length."""

    blocks: Annotated[Expression, q.POSITIVE] = Field(description=f"Columns a row, at most {limits.MOST_RANDOM}.")
    seed: Annotated[Expression | None, q.NUMBER] = Field(
        None, description="Seed of the draw; `h` gives each head its own. Default: 0."
    )


def _local_kind(value: Any) -> str:
    return "sides" if isinstance(value, dict) else "length"


Local = Annotated[
    Annotated[Length, q.LENGTH, Tag("length")] | Annotated[Sides, Tag("sides")], Discriminator(_local_kind)
]  # fmt: skip


class Shard(Model):
    """What some heads keep: the union of the parts given."""

    heads: Annotated[Selector, f.SELECTOR] = Field(
        description='Query heads: all, rest, 3, [0, 5], "0-27" or "1::2" (start:stop:step).'
    )
    dense: Annotated[bool, f.DENSE] = Field(False, description="Keep everything; stands alone.")
    local: Annotated[Local | None, Given('a whole number of blocks, or "N tokens"')] = Field(
        None,
        description='The row\'s own block and those before it: blocks, "N tokens", or {before, after} if not causal.',
    )
    stride: Annotated[Expression | None, q.POSITIVE] = Field(
        None, description="One block in so many, over the whole context."
    )
    offset: Offsets = Field((), description=OFFSET.format("the stride"))
    width: Annotated[Expression | None, q.POSITIVE] = Field(
        None, description="Blocks kept in each stride, at most all. Default: 1."
    )
    strides: Annotated[
        tuple[Annotated[Stride, Keys("`every: 16`")], ...], ListOf("`- every: 16`", limits.MOST_STRIDES)
    ] = Field((), description="Several strides, each with an anchor and a range of distances.")
    sink: Annotated[Length | None, q.SINK] = Field(None, description='The first blocks of the context, or "N tokens".')
    chunk: Annotated[Length | None, q.LENGTH] = Field(
        None,
        description='Chunks of so many blocks, or "N tokens" (whole blocks): a row keeps the columns of its own chunk.',
    )
    globals: Annotated[Globals | None, Keys("`columns: [0]`")] = Field(
        None, description="Rows that keep every column, columns that every row keeps."
    )
    random: Annotated[Random | None, Keys("{blocks: 2, seed: 0}")] = Field(
        None, description="Columns drawn for each row."
    )
    mask: Annotated[str | None, f.MASK] = Field(
        None, description="A .npy file beside this one: bool [rows, columns] or [heads, rows, columns], in blocks."
    )


Shards = Annotated[tuple[Annotated[Shard, Keys("`heads: all`")], ...], ListOf("`- heads: all`", limits.MOST_HEADS)]
