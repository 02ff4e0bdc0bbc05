"""How a value of a file becomes a field of a model: one validator a value, so that one mistake gives one message.

Nothing is coerced: true is not 1, "3" is text. `BAD` passes: its mistake has been noted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from patterncc.errors import did_you_mean
from patterncc.language.document import BAD

Schema = dict[str, Any]


def must_be(expected: str, help: str | None = None) -> PydanticCustomError:
    """The error of a wrong value, with the message `<key> is <value>; it must be <expected>`."""
    return PydanticCustomError("must_be", "{expected}", {"expected": expected, "help": help})


def mistake(message: str, help: str | None = None, inside: tuple[int, int] | None = None) -> PydanticCustomError:
    """The error of a wrong value with a message of its own; `inside` marks columns of its text."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "help": help, "inside": inside})


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of value: how to read it, and its JSON Schema. Annotates a field whose type is what `read` gives."""

    read: Callable[[Any], Any]
    schema: Schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(lambda value: BAD if value is BAD else self.read(value))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return dict(self.schema)


@dataclass(frozen=True)
class ListOf:
    """A list with at least one and at most `most` items; `single`: a value alone counts as a list of one."""

    example: str
    most: int
    single: bool = False

    def read(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        """What `inner`, which reads entries, gives for the list; a mistake where it is none."""
        if value is BAD:
            return BAD
        if self.single and not isinstance(value, (list, dict)):
            return inner((value,))
        if not isinstance(value, list):
            hint = "begin each entry with `- `" if isinstance(value, dict) else None
            raise must_be(f"a list such as {self.example}", hint)
        if not value:
            raise mistake("an empty list", f"write a list such as {self.example}, or leave the key out")
        if len(value) > self.most:
            raise mistake(f"a list of {len(value)} entries; the most is {self.most}")
        return inner(tuple(value))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        array = {**handler(core), "minItems": 1}
        return {"anyOf": [array["items"], array]} if self.single else array


@dataclass(frozen=True)
class Given:
    """Not the empty value, whatever else."""

    expected: str

    def read(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        if value is None:
            raise must_be(self.expected)
        return inner(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self.read, handler(source))


@dataclass(frozen=True)
class Keys:
    """Keys and values: a model of its own."""

    example: str

    def read(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        """What `inner`, which reads the model, gives for the keys and values; a mistake where there are none."""
        if value is BAD:
            return BAD
        if not isinstance(value, dict):
            raise must_be(f"keys and values, such as {self.example}")
        return inner(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self.read, handler(source))


def one_of(*words: str) -> Kind:
    """One of a few words."""

    def read(value: Any) -> str:
        if value not in words or not isinstance(value, str):
            close = did_you_mean(value, words) if isinstance(value, str) else None
            raise must_be(" or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words),
                          f"did you mean {close}?" if close else None)  # fmt: skip
        return value

    return Kind(read, {"enum": list(words)})
