"""The plan of those layers that have one shape: what the kernels of these layers are made from."""

from __future__ import annotations

from dataclasses import replace

from patterncc.debug import traced
from patterncc.ir.plan import Plan
from patterncc.language.shape import Shape


@traced
def of_shape(plan: Plan, shape: Shape) -> Plan:
    """The plan with these layers and their classes only, numbered anew, every layer of this shape.

    >>> from patterncc.ir.classes import Classes
    >>> from patterncc.passes.choose_plan import choose_plan
    >>> wide, narrow = Shape(2, 1, 64), Shape(1, 1, 128)
    >>> text = "x: block 64, causal, head_dim 64, heads 2, kv_heads 1\\nclass 0: d<4\\nclass 1: all\\n"
    >>> text += f"shapes 0: {wide}\\nshapes 1: {narrow}\\nlayers 0: 0*2\\nlayers 1: 1"
    >>> print(of_shape(choose_plan(Classes.parse(text)), narrow))
    x: block 64, causal, head_dim 128, heads 1, kv_heads 1
    class 0: all
    layers 0: 0
    form: closed
    closed 0: 0<=d
    """
    rows = [row for row, own in zip(plan.classes.of, plan.classes.shapes, strict=True) if own == shape]
    used = list(dict.fromkeys(k for row in dict.fromkeys(rows) for k in row))
    number = {k: n for n, k in enumerate(used)}
    classes = replace(
        plan.classes,
        head_dim=shape.head_dim,
        v_head_dim=shape.v_head_dim,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        sinks=shape.sinks,
        layouts=tuple(plan.classes.layouts[k] for k in used),
        of=tuple(tuple(number[k] for k in row) for row in rows),
        shapes=(),
    )
    return Plan(classes, plan.form, tuple(plan.closed[k] for k in used))
