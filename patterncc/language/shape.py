"""How many heads a layer has, and how wide they are: the pattern's own sizes, or those that an entry of `layouts`
states."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from patterncc.language.document import BAD

if TYPE_CHECKING:
    from patterncc.language.claims import Reporter
    from patterncc.language.written import LayoutEntry, Written

SIZES = ("heads", "kv_heads", "head_dim", "v_head_dim")  # the keys that an entry of `layouts` may state


@dataclass(frozen=True, order=True)
class Shape:
    """The sizes of a layer, and whether its heads have sinks."""

    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int = 0  # width of a value; given as 0, that of a head
    sinks: bool = False  # whether callers must pass a logit for every query head

    def __post_init__(self) -> None:
        object.__setattr__(self, "v_head_dim", self.v_head_dim or self.head_dim)

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.heads // self.kv_heads

    def __str__(self) -> str:
        """
        >>> str(Shape(96, 8, 128))
        'heads 96, kv_heads 8, head_dim 128'
        """
        values = f", v_head_dim {self.v_head_dim}" if self.v_head_dim != self.head_dim else ""
        return (
            f"heads {self.heads}, kv_heads {self.kv_heads}, head_dim {self.head_dim}{values}" + ", sinks" * self.sinks
        )

    @staticmethod
    def parse(text: str) -> Shape:
        """Read back what `str` printed.

        >>> Shape.parse("heads 96, kv_heads 8, head_dim 128").group
        12
        """
        sizes = dict(part.split() for part in text.removesuffix(", sinks").split(", "))
        return Shape(**{key: int(number) for key, number in sizes.items()}, sinks=text.endswith(", sinks"))


def shape_of(pattern: Written, layout: LayoutEntry | None = None) -> Shape:
    """The sizes that an entry of `layouts` states; what it leaves out is the pattern's as written there, and what
    neither states follows from the entry's own `heads` and `head_dim`. BAD stands where a mistake was noted."""

    def stated(key: str) -> bool:
        return layout is not None and key in layout.model_fields_set

    heads, kv_heads, head_dim, v_head_dim = (getattr(layout if stated(key) else pattern, key) for key in SIZES)
    if stated("heads") and not stated("kv_heads") and "kv_heads" not in pattern.model_fields_set:
        kv_heads = heads
    if stated("head_dim") and not stated("v_head_dim") and "v_head_dim" not in pattern.model_fields_set:
        v_head_dim = head_dim
    sinks = pattern.sinks is not None or (layout is not None and layout.sinks is not None)
    return Shape(heads, kv_heads, head_dim, v_head_dim, sinks)


def check_shape(shape: Shape, written: frozenset[str], at: tuple[str | int, ...], report: Reporter) -> Shape:
    """The shape with kv_heads BAD where that does not divide heads, which is reported at the key, of those `written`
    below `at`, that made it so."""
    heads, kv_heads = shape.heads, shape.kv_heads
    if heads is BAD or kv_heads is BAD or heads % kv_heads == 0:
        return shape
    divisors = [d for d in range(1, heads + 1) if heads % d == 0]
    near = min(divisors, key=lambda d: abs(d - kv_heads))
    if at and "kv_heads" not in written:
        help = f"state kv_heads in this entry too, for example {near}"
        report((*at, "heads"), f"heads is {heads} here; kv_heads {kv_heads}, the pattern's, must divide it", help)
    else:
        report((*at, "kv_heads"), f"kv_heads {kv_heads} must divide heads, {heads}", f"did you mean {near}?")
    return replace(shape, kv_heads=BAD)
