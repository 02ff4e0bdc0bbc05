"""What tests of programs that work together stand on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Order = Callable[[list[tuple[int, int, int]]], list[tuple[int, int, int]]]


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> Callable[[Order], None]:
    """Has the interpreter run the programs of each grid, one after the other, in another order than its own."""
    from triton.runtime.interpreter import interpreter_builder as builder

    own = builder.set_grid_idx

    def use(order: Order) -> None:
        orders: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}

        def moved(x: int, y: int, z: int) -> None:
            dims = builder.grid_dim
            if dims not in orders:
                usual = [(i, j, k) for i in range(dims[0]) for j in range(dims[1]) for k in range(dims[2])]
                orders[dims] = order(usual)
                assert sorted(orders[dims]) == usual
            own(*orders[dims][(x * dims[1] + y) * dims[2] + z])

        monkeypatch.setattr(builder, "set_grid_idx", moved)

    return use
