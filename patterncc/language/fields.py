"""Every kind of value except the numbers of a shard (see `quantities`): how it is read, the message when it is wrong,
and its JSON Schema.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from typing import Any, Literal

from patterncc.errors import quote
from patterncc.language.document import BAD
from patterncc.language.expression import NAMES
from patterncc.language.kinds import Kind, Schema, mistake, must_be, one_of
from patterncc.language.limits import (
    BLOCKS,
    LONGEST_ABOUT,
    LONGEST_NAME,
    MOST_HEAD_DIM,
    MOST_HEADS,
    MOST_LAYERS,
    SCALE_FROM,
    SCALE_TO,
    SOFTCAP_FROM,
    SOFTCAP_TO,
)
from patterncc.language.selector import Selector, SelectorError

EXPRESSION_LIKE = r"[hgl0-9+\-*/%() ]+"
SELECTOR_TEXT = r"[0-9]+ *(- *[0-9]+ *)?|([0-9]+ *)?: *([0-9]+ *)?(: *([0-9]+ *)?)?"  # and the spaces after it
SELECTOR_PATTERN = f"^ *({SELECTOR_TEXT})(, *({SELECTOR_TEXT}))*$"
SELECTOR_SCHEMA: Schema = {
    "anyOf": [
        {"enum": ["all", "rest"]},
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": SELECTOR_PATTERN},
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    {"type": "integer", "minimum": 0},
                    {"type": "string", "pattern": SELECTOR_PATTERN},
                ]
            },
        },
    ]
}


def _whole(lowest: int, highest: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int:
            text = isinstance(value, str)
            expected = f"a whole number from {lowest} to {highest}"
            hint = "remove the quotes" if text and value.strip().isdecimal() else None
            if text and re.fullmatch(EXPRESSION_LIKE, value) and set(NAMES) & set(value):
                hint = "expressions are allowed in `shards` only"
            elif value in ("all", "rest"):
                hint = "it is how many there are; which heads keep what stands in `shards`"
            raise must_be(expected, hint)
        if not lowest <= value <= highest:
            raise must_be(f"from {lowest} to {highest}")
        return value

    return read


def _block(value: Any) -> int:
    if type(value) is not int or value not in BLOCKS:
        quoted = isinstance(value, str) and value in map(str, BLOCKS)
        raise must_be("16, 32, 64 or 128", "remove the quotes" if quoted else "a block is that many consecutive tokens")
    return value


def _fraction_kind(low: float, high: float, such_as: str, help: str) -> Kind:
    def read(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise must_be(f"a number from {low} to {high}, such as {such_as}", help)
        return float(value)

    return Kind(read, {"type": "number", "minimum": low, "maximum": high})


def _version(value: Any) -> int:
    if type(value) is not int or value != 1:
        raise must_be("1", "1 is the only version of the language so far")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        quoted = isinstance(value, str) and value.lower() in ("true", "false")
        raise must_be("true or false", "remove the quotes" if quoted else None)
    return value


def _dense(value: Any) -> Literal[True]:
    if value is not True:
        quoted = "remove the quotes" if isinstance(value, str) and value.lower() == "true" else None
        raise must_be("true", "heads that are not dense have no `dense` key" if value is False else quoted)
    return True


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise must_be("a Python identifier", "the generated module bears this name")
    if len(value) > LONGEST_NAME:
        raise mistake(f"a name of {len(value)} characters; the most is {LONGEST_NAME}")
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", value):
        better = re.sub("[^A-Za-z0-9_]+", "_", value).strip("_")
        better = f"_{better}" if better[:1].isdigit() else better
        hint = f"; did you mean {better}?" if better and not keyword.iskeyword(better) else ""
        raise must_be(
            "a Python identifier of ASCII letters, digits and _", f"the generated module bears this name{hint}"
        )
    if keyword.iskeyword(value) or value.startswith("__"):
        what = "a keyword of Python" if keyword.iskeyword(value) else "a name that Python keeps for itself"
        raise mistake(f"name {quote(value)} is {what}", f"did you mean {value.strip('_').lower()}_pattern?")
    if value.lower() in ("torch", "triton", "numpy", "patterncc"):  # what the package itself, or its user, imports
        raise mistake(
            f"a module {quote(value)} exists already; the generated one would hide it",
            f"did you mean {value.lower()}_pattern?",
        )
    return value


def _about(value: Any) -> str:
    if not isinstance(value, str):
        raise must_be("text", "put it in quotes" if value is not None else "leave the key out, or write a sentence")
    if len(value) > LONGEST_ABOUT:
        raise mistake(f"about is {len(value)} characters long; the most is {LONGEST_ABOUT}")
    if any(not c.isprintable() and c not in "\n " for c in value):
        raise mistake("about holds a control character", "write plain text")
    return value


def _selector(value: Any) -> Selector:
    try:
        if isinstance(value, list) and any(item is BAD for item in value):
            return BAD
        return Selector.parse(value)
    except SelectorError as error:
        simple = value is None or isinstance(value, (bool, dict))
        raise (
            must_be('all, rest, 3, [0, 5], "0-27" or "1::2"') if simple else mistake(error.message, error.help)
        ) from None


def _mask(value: Any) -> str:
    if not isinstance(value, str) or not value.endswith(".npy"):
        raise must_be("a file name that ends in .npy", "save the mask with numpy.save(name, array_of_bool)")
    return value


def _reach(value: Any) -> int:
    expected = 'a number of layers from 1 to 4096, such as "4 layers"'
    if isinstance(value, str) and (found := re.fullmatch(r"\s*([1-9][0-9]{0,5})\s+layers?\s*", value)):
        value = int(found[1])
    if type(value) is not int or not 1 <= value <= MOST_LAYERS:
        raise must_be(expected)
    return value


def _whole_kind(lowest: int, highest: int) -> Kind:
    return Kind(_whole(lowest, highest), {"type": "integer", "minimum": lowest, "maximum": highest})


VERSION = Kind(_version, {"const": 1})
NAME = Kind(_name, {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength": LONGEST_NAME})
ABOUT = Kind(_about, {"type": "string", "maxLength": LONGEST_ABOUT})
HEADS = _whole_kind(1, MOST_HEADS)
LAYERS = _whole_kind(1, MOST_LAYERS)
HEAD_DIM = _whole_kind(1, MOST_HEAD_DIM)
BLOCK = Kind(_block, {"enum": list(BLOCKS)})
SOFTCAP = _fraction_kind(SOFTCAP_FROM, SOFTCAP_TO, "50.0", "leave the key out for scores as they are")
SCALE = _fraction_kind(SCALE_FROM, SCALE_TO, "0.125", "leave the key out for head_dim ** -0.5")
SINKS = one_of("learned")
FLAG = Kind(_flag, {"type": "boolean"})
DENSE = Kind(_dense, {"const": True})
SELECTOR = Kind(_selector, SELECTOR_SCHEMA)
MASK = Kind(_mask, {"type": "string", "pattern": r"\.npy$"})
REACH = Kind(
    _reach, {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[1-9][0-9]* layers?$"}]}
)
ANCHOR = one_of("key", "query")
COVERAGE = one_of("layer", "group", "model")
ROWS = one_of("nonempty")
KV = one_of("monotone", "group")
