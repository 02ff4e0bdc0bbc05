"""The distinct shapes of a plan's layers, and the folders of the packages that serve them."""

from __future__ import annotations

from collections.abc import Iterator

from patterncc.ir.plan import Plan
from patterncc.language.ranges import ranges
from patterncc.language.shape import Shape


def shapes_of(plan: Plan) -> dict[Shape, str]:
    """The distinct shapes in the order of their first layers, and the folders of their packages.

    >>> folder_of(Shape(96, 8, 192, 128))
    'h96_kv8_d192_v128'
    """
    return {shape: folder_of(shape) for shape in dict.fromkeys(plan.classes.shapes)}


def folder_of(shape: Shape) -> str:
    values = f"_v{shape.v_head_dim}" if shape.v_head_dim != shape.head_dim else ""
    return f"h{shape.heads}_kv{shape.kv_heads}_d{shape.head_dim}{values}" + "_sinks" * shape.sinks


def layers_of(plan: Plan, shape: Shape) -> tuple[int, ...]:
    return tuple(layer for layer, own in enumerate(plan.classes.shapes) if own == shape)


def folders_of(plan: Plan) -> Iterator[str]:
    """A line for each shape: its folder, its layers and its sizes."""
    shapes = shapes_of(plan)
    first = next(iter(shapes.values()))
    yield f"`part(layer)` is the package of a layer, in one of these folders; open {first}/ first, they are alike:\n"
    for shape, folder in shapes.items():
        yield f"{folder}/   layers {ranges(layers_of(plan, shape))}: {shape}"
