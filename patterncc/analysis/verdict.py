"""What a proof says about one property, and how it is written down."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Any

from patterncc.analysis.geometry.answer import INFINITY, Answer

MAYBE = "witness"  # how a proof begins whose witness may not be the smallest


@dataclass(frozen=True)
class Witness:
    """A counterexample: block row and column, and the tokens in them. A row that keeps nothing has no column."""

    row: int
    column: int | None
    query_token: int
    key_token: int | None

    def to_json(self) -> dict[str, int | None]:
        return {"row": self.row, "column": self.column, "query_token": self.query_token, "key_token": self.key_token}

    def __str__(self) -> str:
        if self.column is None:
            return f"row {self.row} (token {self.query_token})"
        return f"row {self.row}, column {self.column} (token {self.query_token} to {self.key_token})"


@dataclass(frozen=True)
class Verdict:
    """One property of one layer class at one scope.

    holds: True for every length, False with a witness, None when undecided
    layers: the layers of the class; heads: the query heads that the witness speaks of
    proof: how far the answer reaches, in words
    value: what the property measures, where it does (reach: layers; balance: a ratio)
    seconds: what the proof took
    """

    property: str
    scope: str
    layers: tuple[int, ...]
    holds: bool | None
    proof: str
    witness: Witness | None = None
    note: str = ""
    value: float | None = None
    heads: tuple[int, ...] = ()
    seconds: float = 0.0

    @builtins.property  # the field above has that name, too
    def found(self) -> str:
        """The witness in words, and whether a smaller one may exist; "" where there is none.

        >>> Verdict("reach", "model", (0,), False, proof_of(Answer((9, 1), 4)), at_tokens((9, 1), 4)).found
        'row 2, column 0 (token 9 to 1); a smaller one may start at token 4 or later'
        """
        if self.witness is None:
            return ""
        return f"{self.witness}{self.proof.removeprefix(MAYBE) if self.proof.startswith(MAYBE) else ''}"

    def to_json(self) -> dict[str, Any]:
        """The result in the form that `patterncc verify --json` prints; `layer` is the first of the class."""
        result: dict[str, Any] = {
            "property": self.property,
            "scope": self.scope,
            "layer": self.layers[0] if self.layers else None,
            "layers": list(self.layers),
            "heads": list(self.heads),
            "holds": self.holds,
            "proof": self.proof,
            "witness": self.witness.to_json() if self.witness else None,
            "note": self.note,
        }
        if self.value is not None:
            result["value"] = self.value
        return result


def at_tokens(pair: tuple[int, int], block: int) -> Witness:
    """The witness of a token pair.

    >>> print(at_tokens((1536, 512), 64))
    row 24, column 8 (token 1536 to 512)
    """
    t, u = pair
    return Witness(t // block, u // block, t, u)


def proof_of(answer: Answer) -> str:
    """How far an answer reaches.

    >>> proof_of(Answer()), proof_of(Answer((9, 1))), proof_of(Answer(settled=4096))
    ('for every length', 'smallest witness', 'undecided beyond 4096 tokens')
    """
    if answer.pair is not None:
        if answer.smallest:
            return "smallest witness"
        return f"{MAYBE}; a smaller one may start at token {int(answer.settled)} or later"
    return "for every length" if answer.settled == INFINITY else f"undecided beyond {int(answer.settled)} tokens"
