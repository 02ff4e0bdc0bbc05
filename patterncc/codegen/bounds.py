"""The bounds and residues of pieces and bands, written as expressions of the kernels' source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from patterncc.codegen.statements import less
from patterncc.codegen.zone_writer import Integers
from patterncc.codegen.zones import FAR, Piece


@dataclass
class PieceBounds:
    """The distances and residues of a piece that every class has, as expressions in the kernel; "" is no bound."""

    ints: Integers
    lines: list[str]  # where a residue that goes with the row is worked out
    causal: bool
    written: dict[tuple[tuple[int, int, int], ...], tuple[str, str]] = field(default_factory=dict)

    def expressions(self, pieces: Sequence[Piece]) -> tuple[str, str, str, str]:
        """(nearest distance, one past the farthest, every, residue)."""
        low = self.ints.expression("nearest", [p.low for p in pieces])
        high = self.ints.expression("farther", [p.high for p in pieces])
        unbounded = "0" if self.causal else str(-FAR)
        return "" if low == unbounded else low, "" if high == str(FAR) else high, *self._period(pieces)

    def _period(self, pieces: Sequence[Piece]) -> tuple[str, str]:
        key = tuple((p.every, p.residue, p.from_query) for p in pieces)
        if key not in self.written:
            n = len(self.written)
            every = self.ints.expression("every", [p.every for p in pieces])
            residue = self.ints.expression("residue", [p.residue for p in pieces])
            turn = self.ints.expression("turn", [p.from_query for p in pieces])
            if turn != "0":
                row = ("i_first" if turn == "1" else f"i_first * {turn}") + f" + {residue}" * (residue != "0")
                self.lines.append(f"row_residue_{n} = (({row}) % {every} + {every}) % {every}")
                residue = f"row_residue_{n}"
            self.written[key] = every, residue
        return self.written[key]

    def rule(self, pieces: Sequence[Piece]) -> str:
        """The condition on d and j."""
        low, high, every, residue = self.expressions(pieces)
        conditions = [f"j <= {less('i_last', low)}"] * bool(low) + [f"j > {less('i_first', high)}"] * bool(high)
        if every != "1":
            conditions.append(f"j % {every} == 0" if residue == "0" else f"(j - {residue}) % {every} == 0")
        return " & ".join(f"({c})" for c in conditions) if len(conditions) > 1 else "".join(conditions) or "u >= 0"


@dataclass
class BandBounds:
    """The distances and residues of a band that every class has, as expressions in the kernel; "" is no bound."""

    ints: Integers
    lines: list[str]  # where the residue of rows that keep a column is worked out
    causal: bool
    written: dict[tuple[Piece, ...], str] = field(default_factory=dict)

    def expressions(self, pieces: Sequence[Piece]) -> tuple[str, str, str, str]:
        """(nearest distance, one past the farthest, every, residue)."""
        low = self.ints.expression("nearest", [p.low for p in pieces])
        high = self.ints.expression("farther", [p.high for p in pieces])
        every = self.ints.expression("every", [p.every for p in pieces])
        residue = self.ints.expression("residue", [p.residue for p in pieces])
        if any(p.from_query for p in pieces):  # of rows: i = j - residue
            key = tuple(Piece(0, 0, p.every, p.residue) for p in pieces)
            if key not in self.written:
                self.written[key] = f"row_residue_{len(self.written)}"
                column = "j_first" + f" - {residue}" * (residue != "0")
                self.lines.append(f"{self.written[key]} = (({column}) % {every} + {every}) % {every}")
            residue = self.written[key]
        unbounded = "0" if self.causal else str(-FAR)
        return "" if low == unbounded else low, "" if high == str(FAR) else high, every, residue

    def rule(self, pieces: Sequence[Piece]) -> str:
        """The condition on i and j."""
        low, high, every, residue = self.expressions(pieces)
        x = "i" if any(p.from_query for p in pieces) else "j"
        conditions = [f"i - j >= {low}"] * bool(low) + [f"i - j < {high}"] * bool(high)
        if every != "1":
            conditions.append(f"{x} % {every} == 0" if residue == "0" else f"({x} - {residue}) % {every} == 0")
        return " & ".join(f"({c})" for c in conditions) if len(conditions) > 1 else "".join(conditions) or "u >= 0"
