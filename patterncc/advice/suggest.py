"""The family of a model → its Pareto front: patterns that are proved and priced, none better than another in every
way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from patterncc.advice.family import BLOCK, Member, family
from patterncc.advice.rates import Rate, rate
from patterncc.advice.shapes import ModelShape
from patterncc.analysis.costs.forecast import forecast
from patterncc.analysis.costs.paged import paged_tokens
from patterncc.analysis.costs.price import SIZES, price
from patterncc.analysis.scopes import layer_classes
from patterncc.analysis.verify import prove_promises
from patterncc.errors import UsageError, counted
from patterncc.ir.classes import Classes
from patterncc.language import loads
from patterncc.passes import lower

MOST = 10  # rows of the table
TRIED = 36  # members that are proved and priced
EVEN = 1.25  # times the mean: a busiest rank up to this is called even
WIDE = 16  # blocks of a window, as S2-Attention's models have


@dataclass(frozen=True)
class Candidate:
    """A proved pattern and its price for one request; bytes are of K and V in all layers."""

    member: Member
    yaml: str
    kv_bytes: int
    kv_bytes_paged: int
    density: float
    # The busiest rank's work over the mean, heads split over as many ranks as divide the KV heads, up to 8.
    balance: float
    exchange_bytes: int  # sent in all when the context is split over 8 devices
    seconds: tuple[float, float] | None  # forward and backward, by measured rates; None where there are none
    recommended: bool = False
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """What `suggest --json` prints of it."""
        return {
            "yaml": self.yaml,
            "kv_bytes": self.kv_bytes,
            "kv_bytes_paged": self.kv_bytes_paged,
            "density": self.density,
            "coverage": self.member.coverage,
            "balance": self.balance,
            "exchange_bytes": self.exchange_bytes,
            "seconds_forward": self.seconds[0] if self.seconds else None,
            "seconds_backward": self.seconds[1] if self.seconds else None,
            "recommended": self.recommended,
            "why": self.why,
        }


@dataclass(frozen=True)
class Wish:
    """The limits that are asked for: KV bytes of all requests together, and the largest share of work."""

    length: int
    kv_budget: int | None = None
    batch: int = 1
    density: float | None = None
    coverage: str | None = None  # "layer", "model", or None for either
    dense_layers: int | None = None
    arch: str | None = None
    dtype: str = "bf16"


def _wider(wish: Wish) -> str:
    """What to ask for where no member covers what is asked for."""
    wider = ["--coverage model"] * (wish.coverage == "layer") + ["fewer --dense-layers"] * bool(wish.dense_layers)
    return f"ask for {' or '.join(wider)}" if wider else "already a stride of 2 needs two heads, of one layer or of two"


def suggest(shape: ModelShape, wish: Wish, name: str = "suggested") -> tuple[list[Candidate], Rate | None]:
    """At most MOST candidates, the smallest cache first, one of them recommended if any fits; and the rates used.

    Raises UsageError where no member of the family can cover the context at the scope that is asked for.
    """
    members = list(family(shape, wish.coverage, wish.dense_layers))
    if not members:
        raise UsageError(
            f"no windows and strides of {counted(shape.heads, 'head')} on {counted(shape.kv_heads, 'KV head')} "
            f"cover the context by {wish.coverage or 'layer, nor by model'}",
            _wider(wish),
        )
    speed = rate(wish.arch, BLOCK) if wish.arch else None
    front = _front(members, wish.length)
    found = [candidate for member in front if (candidate := _candidate(member, wish, name, speed))]
    found = _best(found)
    return [_exchanged(one, wish) for one in _recommend(found, wish)], speed


def _front(members: list[Member], length: int) -> list[Member]:
    """Up to TRIED members that are worth proving: of each way of sharing and each stride the narrow, the usual and the
    wide window; those without dense heads and layers first, the cheapest first."""
    windows = (4, WIDE, 2 * WIDE)
    chosen = [member for member in members if member.window in windows]
    chosen.sort(key=lambda one: (one.dense_heads > 0, one.window != WIDE, one.estimate(length)))
    return chosen[:TRIED]


def _candidate(member: Member, wish: Wish, name: str, speed: Rate | None) -> Candidate | None:
    """The member proved and priced; None where a promise does not hold."""
    yaml = member.to_yaml(name)
    pattern = loads(yaml)
    classes = lower(pattern)
    if not all(verdict.holds for verdict in prove_promises(classes, pattern.promises)):
        return None
    cost = price(classes, wish.length, wish.dtype)
    pairs = cost.density * wish.length * (wish.length + 1) / 2 * classes.heads * classes.layers
    dim, v_dim = classes.head_dim, classes.v_head_dim
    forward, backward = 2 * pairs * (dim + v_dim), 2 * pairs * (3 * dim + 2 * v_dim)
    seconds = (forward / speed.forward, backward / speed.backward) if speed else None
    paged = paged_bytes(classes, wish.length, wish.dtype)
    return Candidate(member, yaml, cost.kv_bytes, paged, cost.density, _balance(classes), 0, seconds)


def _exchanged(one: Candidate, wish: Wish) -> Candidate:
    """The candidate with its exchanged bytes. Counting them takes longer than all the rest, so it is done only for
    candidates that are shown."""
    classes = lower(loads(one.yaml))
    return replace(one, exchange_bytes=forecast(classes, wish.length, wish.dtype).model["exchange_bytes"])


def paged_bytes(classes: Classes, length: int, dtype: str) -> int:
    """K and V bytes of all layers' live pages in an engine with pages."""
    token = classes.kv_heads * (classes.head_dim + classes.v_head_dim) * SIZES[dtype]
    return token * sum(len(layers) * paged_tokens(classes, layers[0], length) for layers in layer_classes(classes))


def _balance(classes: Classes) -> float:
    """The heaviest rank's share over the mean, when the KV heads are split evenly over up to 8 ranks."""
    from patterncc.analysis.costs.weights import token_pairs

    ranks = max(n for n in range(1, 9) if classes.kv_heads % n == 0)
    pairs = [token_pairs(layout, classes.causal, classes.block, 131_072) for layout in classes.layouts]
    worst = 1.0
    for row in set(classes.of):
        size = classes.heads // ranks
        shares = [sum(pairs[k] for k in row[n * size : (n + 1) * size]) for n in range(ranks)]
        mean = sum(shares) / ranks
        worst = max(worst, max(shares) / mean if mean else 1.0)
    return round(worst, 4)


def _best(found: list[Candidate]) -> list[Candidate]:
    """The Pareto front: the candidates that no other one beats in everything that is compared, the smallest cache
    first."""

    def beaten(one: Candidate) -> bool:
        return any(_as_good(other, one) and not _as_good(one, other) for other in found if other is not one)

    return sorted((one for one in found if not beaten(one)), key=lambda one: (one.kv_bytes, one.density))


def _as_good(a: Candidate, b: Candidate) -> bool:
    """Whether a is at least as good as b in everything that is compared."""
    return (
        a.kv_bytes <= b.kv_bytes
        and a.density <= b.density
        and a.member.window >= b.member.window
        and a.member.stride <= b.member.stride
        and a.member.dense_heads >= b.member.dense_heads
        and (a.member.coverage == "layer" or b.member.coverage == "model")
        and a.balance <= max(b.balance, EVEN)
    )


def _recommend(found: list[Candidate], wish: Wish) -> list[Candidate]:
    """At most MOST candidates, one of them marked as recommended if any fits.

    Of those that fit, it prefers one that is even over ranks, covers by layer, and has a window no larger than S2's;
    then with a budget the smallest stride, which keeps most, and without one the smallest cache."""
    fitting = [
        one
        for one in found
        if (wish.kv_budget is None or one.kv_bytes * wish.batch <= wish.kv_budget)
        and (wish.density is None or one.density <= wish.density)
    ]
    limited = wish.kv_budget is not None or wish.density is not None

    def worth(one: Candidate) -> tuple[float, ...]:
        member = one.member
        last = (-member.stride, -one.kv_bytes) if limited else (-one.kv_bytes, -member.stride)
        return (one.balance <= EVEN, member.coverage == "layer", min(member.window, WIDE), *last)

    chosen = max(fitting, key=worth, default=None)
    if len(found) > MOST:
        found = [found[n * (len(found) - 1) // (MOST - 1)] for n in range(MOST)]
        if chosen is not None and chosen not in found:
            nearest = min(range(MOST), key=lambda n: abs(found[n].kv_bytes - chosen.kv_bytes))
            found[nearest] = chosen
    if chosen is None:
        return found
    scope = "every layer sees the whole context" if chosen.member.coverage == "layer" else "all layers together see it"
    best = f"the smallest stride, {chosen.member.stride}" if limited else "the smallest cache"
    left = "fit" if limited else "are left"
    window = chosen.member.window * BLOCK
    why = f"of {len(fitting)} that {left} it has {best}, with a window of {window:,} tokens; {scope}"
    return [replace(one, recommended=one is chosen, why=why if one is chosen else "") for one in found]
