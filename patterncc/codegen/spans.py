"""How kernels say the distances and residues of a piece that every class has: of columns, and of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from patterncc.codegen.statements import less
from patterncc.codegen.zones import FAR, Piece
from patterncc.codegen.zoning import Integers


@dataclass
class Spans:
    """How the kernel says the distances and residues of a piece that every class has; "" is no bound."""

    ints: Integers
    lines: list[str]  # where a residue that goes with the row is worked out
    causal: bool
    said: dict[tuple[tuple[int, int, int], ...], tuple[str, str]] = field(default_factory=dict)

    def say(self, pieces: Sequence[Piece]) -> tuple[str, str, str, str]:
        low = self.ints.say("nearest", [p.low for p in pieces])
        high = self.ints.say("farther", [p.high for p in pieces])
        unbounded = "0" if self.causal else str(-FAR)
        return "" if low == unbounded else low, "" if high == str(FAR) else high, *self._period(pieces)

    def _period(self, pieces: Sequence[Piece]) -> tuple[str, str]:
        key = tuple((p.every, p.residue, p.from_query) for p in pieces)
        if key not in self.said:
            n = len(self.said)
            every = self.ints.say("every", [p.every for p in pieces])
            residue = self.ints.say("residue", [p.residue for p in pieces])
            turn = self.ints.say("turn", [p.from_query for p in pieces])
            if turn != "0":
                row = ("i_first" if turn == "1" else f"i_first * {turn}") + f" + {residue}" * (residue != "0")
                self.lines.append(f"row_residue_{n} = (({row}) % {every} + {every}) % {every}")
                residue = f"row_residue_{n}"
            self.said[key] = every, residue
        return self.said[key]

    def rule(self, pieces: Sequence[Piece]) -> str:
        """The condition on d and j."""
        low, high, every, residue = self.say(pieces)
        conditions = [f"j <= {less('i_last', low)}"] * bool(low) + [f"j > {less('i_first', high)}"] * bool(high)
        if every != "1":
            conditions.append(f"j % {every} == 0" if residue == "0" else f"(j - {residue}) % {every} == 0")
        return " & ".join(f"({c})" for c in conditions) if len(conditions) > 1 else "".join(conditions) or "u >= 0"


@dataclass
class Bands:
    """How the kernel says the distances and residues of a band that every class has; "" is no bound."""

    ints: Integers
    lines: list[str]  # where the residue of rows that keep a column is worked out
    causal: bool
    said: dict[tuple[Piece, ...], str] = field(default_factory=dict)

    def say(self, pieces: Sequence[Piece]) -> tuple[str, str, str, str]:
        low = self.ints.say("nearest", [p.low for p in pieces])
        high = self.ints.say("farther", [p.high for p in pieces])
        every = self.ints.say("every", [p.every for p in pieces])
        residue = self.ints.say("residue", [p.residue for p in pieces])
        if any(p.from_query for p in pieces):  # of rows: i = j - residue
            key = tuple(Piece(0, 0, p.every, p.residue) for p in pieces)
            if key not in self.said:
                self.said[key] = f"row_residue_{len(self.said)}"
                column = "j_first" + f" - {residue}" * (residue != "0")
                self.lines.append(f"{self.said[key]} = (({column}) % {every} + {every}) % {every}")
            residue = self.said[key]
        unbounded = "0" if self.causal else str(-FAR)
        return "" if low == unbounded else low, "" if high == str(FAR) else high, every, residue

    def rule(self, pieces: Sequence[Piece]) -> str:
        """The condition on i and j."""
        low, high, every, residue = self.say(pieces)
        x = "i" if any(p.from_query for p in pieces) else "j"
        conditions = [f"i - j >= {low}"] * bool(low) + [f"i - j < {high}"] * bool(high)
        if every != "1":
            conditions.append(f"{x} % {every} == 0" if residue == "0" else f"({x} - {residue}) % {every} == 0")
        return " & ".join(f"({c})" for c in conditions) if len(conditions) > 1 else "".join(conditions) or "u >= 0"
