"""Everything that a kernel template needs as constants, and the choice of the index map's form."""

from __future__ import annotations

from dataclasses import dataclass

from patterncc.ir.classes import Classes
from patterncc.ir.closed import ClosedForm
from patterncc.ir.layout import QUERY

FORMS = ("closed", "table")


@dataclass(frozen=True)
class Plan:
    """The classes, for each its closed form if it has one, and the form of the index map in kernels.

    >>> from patterncc.ir.layout import Layout
    >>> layouts = Layout.parse("d<4 | j%8==0"), Layout.parse("3<=i<4")
    >>> classes = Classes("demo", 64, True, 128, 2, 1, layouts, of=((0, 1),))
    >>> print(Plan(classes, "table", (ClosedForm.parse("0<=d<4 | 4<=d & j%8==0"), None)))
    demo: block 64, causal, head_dim 128, heads 2, kv_heads 1
    class 0: d<4 | j%8==0
    class 1: 3<=i<4
    layers 0: 0 1
    form: table
    closed 0: 0<=d<4 | 4<=d & j%8==0
    closed 1: none
    """

    classes: Classes
    form: str  # one of FORMS
    closed: tuple[ClosedForm | None, ...]  # [class]

    @property
    def free_tiles(self) -> bool:
        """Whether a query tile may span several rows: their columns differ only in where bands begin and end."""
        anchors = {band.anchor for form in self.closed if form for band in form.bands}
        return self.form == "closed" and QUERY not in anchors

    def __str__(self) -> str:
        forms = [f"closed {k}: {form or 'none'}" for k, form in enumerate(self.closed)]
        return "\n".join([str(self.classes), f"form: {self.form}", *forms])

    @staticmethod
    def parse(text: str) -> Plan:
        """Read back what `str` printed."""
        classes, _, tail = text.partition("\nform: ")
        form, *rest = tail.splitlines()
        forms = [line.split(": ", 1)[1] for line in rest]
        closed = tuple(None if line == "none" else ClosedForm.parse(line) for line in forms)
        return Plan(Classes.parse(classes), form, closed)
