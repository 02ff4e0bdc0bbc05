"""Files of per-head choices → a pattern: DuoAttention's gates (TSV) and MInference's static heads (JSON)."""

from __future__ import annotations

import math
from typing import Any

from patterncc.errors import Span, UsageError, counted, quote
from patterncc.formats.imported import Imported
from patterncc.formats.places import WrongValue
from patterncc.formats.rules import DENSE, Rule, Shape, to_yaml

GATE = 0.5  # a head with a larger one is dense
SINK, RECENT = 128, 256  # tokens of the others


def read_duo(text: str, name: str) -> Imported:
    """DuoAttention's table of gates, a line a layer and a number a KV head: dense above `GATE`, else streaming."""
    layers: list[list[Rule]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            gates = [float(word) for word in line.split()]
        except ValueError:
            raise _wrong(
                number, line, f"line {number} is {quote(line, 60)}; expected a number for each KV head"
            ) from None
        if not all(map(math.isfinite, gates)) or (layers and len(gates) != len(layers[0])):
            has = f"line {number} has {counted(len(gates), 'number')}"
            raise _wrong(number, line, f"{has}; expected as many finite ones as the first line")
        streaming = Rule(local=f"{RECENT} tokens", sink=f"{SINK} tokens")
        layers.append([DENSE if gate > GATE else streaming for gate in gates])
    if not layers:
        raise UsageError("the file holds no gates")
    heads = len(layers[0])
    notes = (
        f"dense where the gate is above {GATE}, else the first {SINK} and the newest {RECENT} tokens",
        f"heads is {heads}, the number of KV heads in the file: multiply it by the queries a KV head has",
    )
    shape = Shape(name, "Retrieval and streaming heads of DuoAttention.", heads, heads, 128, len(layers), 64)
    return Imported(name, to_yaml(shape, layers, ["Source: DuoAttention gates.", *notes]), "heads", True, notes)


def _wrong(number: int, line: str, message: str) -> UsageError:
    return UsageError(message, span=Span(number, 1, len(line) + 1), source_line=line)


def read_minference(document: list[Any], name: str) -> Imported:
    """MInference's list of layers, each {"head": [kind, first, second, score]}; only `stream_llm` is static."""
    layers: list[list[Rule]] = []
    for number, layer in enumerate(document):
        if not isinstance(layer, dict) or not layer:
            raise WrongValue((number,), f"layer {number} of the file is no object of heads")
        rules = []
        for head in range(len(layer)):
            entry = layer.get(str(head))
            if not isinstance(entry, list) or len(entry) < 3 or not all(type(x) is int and x >= 0 for x in entry[1:3]):
                raise WrongValue(
                    (number, str(head)), f"layer {number} does not say head {head} as [kind, number, number, score]"
                )
            if entry[0] != "stream_llm":
                raise WrongValue(
                    (number, str(head), 0),
                    f"layer {number}, head {head} is {quote(str(entry[0]), 40)}: its blocks depend on the data",
                    "only stream_llm heads are static; choose those, or import masks that you measured",
                )
            rules.append(Rule(local=f"{max(1, entry[2])} tokens", sink=f"{entry[1]} tokens" if entry[1] else None))
        layers.append(rules)
    heads = len(layers[0]) if layers else 0
    if not heads or any(len(rules) != heads for rules in layers):
        raise UsageError("the file must say the same number of heads, one or more, in every layer")
    shape = Shape(name, "Streaming heads chosen by MInference.", heads, heads, 128, len(layers), 64)
    return Imported(name, to_yaml(shape, layers, ["Source: a MInference head file."]), "heads", True)
