"""The passes, each a file with one function of its name, in the order in which the pipeline calls them.

    resolve_heads   Pattern → Layouts     selectors and expressions evaluated: the layout of every head and layer
    merge_heads     Layouts → Classes     heads with equal layouts share a class
    normalise       Classes → Classes     each layout in its shortest form, so that more of them are equal
    choose_plan     Classes → Plan        the closed form where every class has one, else the table

    of_shape        Plan → Plan           the layers of one shape, where layers differ in heads or widths

and functions of a single layout, which these, the analyses and the commands use:

    closed_form     Layout → ClosedForm   bands of distances with residues; None where arithmetic cannot say it
    lower_table     Layout → Table        the columns of every row, for a given number of rows

`lower` runs the first three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patterncc.ir.classes import Classes
    from patterncc.language.model import Pattern


def lower(pattern: Pattern) -> Classes:
    """The rules of every head: what proofs, forecasts, drawings and plans are made from."""
    from patterncc.passes.merge_heads import merge_heads
    from patterncc.passes.normalise import normalise
    from patterncc.passes.resolve_heads import resolve_heads

    layouts = resolve_heads(pattern)
    classes = merge_heads(pattern, layouts)
    return normalise(classes)
