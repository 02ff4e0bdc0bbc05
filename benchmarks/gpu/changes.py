"""Changed copies of packages, made by `prepare`: in each, one constant or line of a kernel is another, to be
timed against the package as it is.

Each is a change of one line that is a matter of speed alone: a result is as right as before, which is checked before
anything is timed. `python -m benchmarks decide` says which of them was faster; then that line is changed in
`codegen_templates`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Variant:
    """A line in a file of a package, and what it becomes; or, without a file, another family of kernels, which the
    switch takes for it. The package as it is runs by the family in Gluon."""

    base: str  # the name of the case
    suffix: str  # of the changed one
    directions: tuple[str, ...]
    constant: str  # what changes, and what it becomes
    file: str = ""
    line: str = ""  # a regular expression
    becomes: str = ""
    batch: int = 4
    tokens: int = 16384
    family: str = "gluon"

    @property
    def name(self) -> str:
        """Of its cell."""
        return f"{self.base}_{self.suffix}"

    @property
    def case(self) -> str:
        """The name of the changed case, whose package is compiled as the other's and then changed."""
        return self.name if self.file else self.base

    @property
    def changed(self) -> str:
        """The instruction for whoever adopts the change: its file, the line as it is, and the new line."""
        line = re.sub(r"\\(.)", r"\1", self.line).strip()
        return f"{self.file}: the line `{line}` becomes\n{self.becomes}"

    def change(self, package: Path) -> None:
        """Change the package; ValueError unless the line is there once."""
        file = package / self.file
        text, count = re.subn(f"(?m)^{self.line}$", lambda _: self.becomes, file.read_text())
        if count != 1:
            raise ValueError(f"{self.name}: {count} lines of {file} are like {self.line!r}, and one was expected")
        file.write_text(text)


FORWARD, BACKWARD = ("forward",), ("backward",)
STEP = "                n = n_all - 1 - i"
WALK = "far slots of the forward and of dQ walked up: `n` in kernels/hopper/produce.py"
UP = f"{STEP}\n                n = gl.where(n < far, far - 1 - n, n)"
FUSED = "FUSED_BY_DEFAULT of launch/hopper_fused.py: True"  # five products instead of seven
TOGETHER = "TOGETHER of launch/items.py: all heads at a time, the longest items of dK and dV first"
REGISTERS = "{64: (144, 80), 128: (232, 40), 256: (232, 40)}"


def _variants() -> tuple[Variant, ...]:
    walked = "kernels/hopper/produce.py", re.escape(STEP), UP
    longest = "launch/items.py", "TOGETHER = .*", "TOGETHER = 1 << 20"
    return (
        Variant("ancestor", "fused", BACKWARD, FUSED, family="fused"),
        Variant("dim64", "fused", BACKWARD, FUSED, family="fused"),
        Variant("grouped", "fused", BACKWARD, FUSED, batch=1, family="fused"),
        Variant("ancestor", "up", ("forward", "backward"), WALK, *walked),
        Variant("dense", "up", FORWARD, WALK, *walked, batch=1),
        Variant("block16", "up", FORWARD, WALK, *walked),
        Variant("ancestor", "longest", BACKWARD, TOGETHER, *longest),
        Variant(
            "ancestor", "registers", FORWARD, "REGISTERS[128] of launch/hopper.py: 232 and 40",
            "launch/hopper.py", "REGISTERS = .*", f"REGISTERS = {REGISTERS}",
        ),
        Variant(
            "ancestor", "dq_registers", BACKWARD, "DQ_REGISTERS of launch/hopper_backward.py: 240 and 24",
            "launch/hopper_backward.py", "DQ_REGISTERS = .*", "DQ_REGISTERS = 240, 24",
        ),
        Variant(
            "block16", "dkdv_registers", BACKWARD, "FEWER_REGISTERS[128] of launch/hopper_backward.py: 240 and 24",
            "launch/hopper_backward.py", "FEWER_REGISTERS = .*", "FEWER_REGISTERS = {64: (208, 88), 128: (240, 24)}",
        ),
    )  # fmt: skip


TOY_VARIANT = Variant("toy", "", ("forward", "backward"), "nothing", batch=1, tokens=60)  # of itself
VARIANTS = {each.name: each for each in _variants()}
CHANGED = tuple(each for each in VARIANTS.values() if each.file)
