"""Choose how kernels take the index map: as arithmetic where every class allows it, else as tables."""

from __future__ import annotations

from patterncc.debug import traced
from patterncc.errors import UsageError
from patterncc.ir.classes import Classes
from patterncc.ir.plan import Plan
from patterncc.passes.closed_form import closed_form


@traced
def choose_plan(classes: Classes, form: str | None = None) -> Plan:
    """The plan, in the wanted `form` if one is given; UsageError when closed is wanted and a class has no closed form.

    >>> from patterncc.ir.layout import Layout
    >>> classes = Classes("demo", 64, True, 128, 1, 1, (Layout.parse("d<2 | j%8==0"),), ((0,),))
    >>> print(choose_plan(classes))
    demo: block 64, causal, head_dim 128, heads 1, kv_heads 1
    class 0: d<2 | j%8==0
    layers 0: 0
    form: closed
    closed 0: 0<=d<2 | 2<=d & j%8==0
    >>> choose_plan(classes, form="table").form
    'table'
    """
    closed = tuple(closed_form(layout, classes.causal) for layout in classes.layouts)
    best = "table" if None in closed else "closed"
    if form == "closed" and best != "closed":
        layout = classes.layouts[closed.index(None)]
        raise UsageError(f"{classes.name} has no closed form: {str(layout)[:200]}", "take --plan table")
    return Plan(classes, form or best, closed)
