"""NaN and infinities in keys and values reach the rows that keep them, and which others: none on the CPU and in the
cache; in kernels a value may reach the rows of a tile in which some row keeps it. docs/package.md states the rule.

Longer than other files: one rule, which every kind of call is held to.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.kernels.held import GROUPS, HEAD, TOLERANCE, Held, gradients, held, weights

NAN, INF = float("nan"), float("inf")
TEXTS = {
    "tokens": HEAD + "shards: [{heads: 0, local: 21 tokens, sink: 5 tokens}, {heads: rest, local: 2, sink: 19 tokens}]",
    "strided": GROUPS + "shards: [{heads: all, local: 1, stride: 4, offset: h}]",
    "dense": HEAD + "shards: [{heads: 0, dense: true}, {heads: rest, local: 3}]",
    "table": HEAD + "shards: [{heads: all, local: 20 tokens, random: {blocks: 1, seed: h}}]",
    "both_ways": HEAD + "causal: false\nshards: [{heads: all, local: {before: 20 tokens, after: 9 tokens}, sink: 1}]",
}
LENGTH = 150  # tokens
Results = tuple[Tensor, Tensor]


def drawn(of: Held, keys: int = LENGTH, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    make, p = torch.Generator().manual_seed(keys), of.pattern
    shapes = ((p.heads, LENGTH), (p.kv_heads, keys), (p.kv_heads, keys))
    return tuple(torch.randn(1, *shape, p.head_dim, generator=make).to(dtype) for shape in shapes)  # type: ignore[return-value]


def attention(of: Held, q: Tensor, k: Tensor, v: Tensor) -> Results:
    return of.package.attention(q, k, v, return_lse=True)


def varlen(of: Held, q: Tensor, k: Tensor, v: Tensor) -> Results:
    """The second of two sequences, the first of which is not finite at all."""
    packed = [torch.cat((torch.full_like(x[0, :, :40], NAN), x[0]), 1).transpose(0, 1) for x in (q, k, v)]
    starts = torch.tensor([0, 40, 40 + LENGTH], dtype=torch.int32)
    out, lse = of.package.attention_varlen(*packed, starts, starts, LENGTH, LENGTH, return_lse=True)
    return out[40:].transpose(0, 1)[None], lse[None, :, 40:]


def paged(of: Held, q: Tensor, k: Tensor, v: Tensor, tokens: int = LENGTH) -> Results:
    """Pages of 16 tokens, the last ones first, full of NaN behind the last key; the newest of the tokens' queries."""
    count = -(-k.shape[2] // 16)
    caches = []
    for x in (k, v):
        whole = torch.full((count * 16, *x.shape[1::2]), NAN, dtype=x.dtype)
        whole[: x.shape[2]] = x[0].transpose(0, 1)
        caches.append(whole.unflatten(0, (count, 16)).flip(0))
    table = torch.arange(count - 1, -1, -1, dtype=torch.int32)[None]
    given = q[0, :, LENGTH - tokens :].transpose(0, 1)[None]
    length = torch.tensor([k.shape[2]], dtype=torch.int32)
    out, lse = of.package.decode(given, *caches, table, length, return_lse=True)
    return out.transpose(1, 2), lse


def mask_of(of: Held) -> Tensor:
    """Which row keeps which key: bool [heads, queries, keys]."""
    return reference.dense_mask(of.pattern, 0, LENGTH)


def reached(of: Held, rows: Tensor) -> Tensor:
    """The rows of all tiles in which any of these rows is: bool [heads, queries], of all heads of a KV head."""
    size = of.part("launch.configs").forward("interpreter", of.pattern.head_dim, 4, LENGTH).rows
    padded = torch.nn.functional.pad(rows, (0, -LENGTH % size)).unflatten(1, (-1, size))
    tiles = padded.any(2, keepdim=True).expand_as(padded).flatten(1)[:, :LENGTH]
    group = of.pattern.group
    return tiles.unflatten(0, (-1, group)).any(1).repeat_interleave(group, 0)


def same(found: Tensor, clean: Tensor, where: Tensor) -> bool:
    """Up to rounding: other calls may do the work where something is not finite."""
    rounding = TOLERANCE.get(clean.dtype, 1e-12)
    return torch.allclose(found[0][where], clean[0][where], rtol=rounding, atol=rounding)


WHATS = ["k", "v", "both"]
CPU = pytest.mark.parametrize("path", ["compiled", "torch"], indirect=True)
QUICK = [  # in the interpreter, which is slow: every call, pattern and token once
    (attention, "tokens", 37),
    (attention, "strided", 149),
    (attention, "both_ways", 3),
    (attention, "table", 37),
    (varlen, "dense", 149),
    (paged, "tokens", 3),
]


@pytest.mark.parametrize(
    ("path", "call", "text", "token"),
    [("kernels", *case) for case in QUICK]
    + list(product(("compiled", "torch"), (attention,), TEXTS, (3, 37, 149)))
    + list(product(("compiled", "torch"), (varlen, paged), TEXTS, (37,))),
    indirect=["path"],
)
@pytest.mark.parametrize("what", WHATS)
def test_the_rule(call: Callable[..., Results], text: str, what: str, token: int, path: str) -> None:
    """One token of all KV heads holds NaN: rows that keep it are NaN, rows that it may not reach as without it."""
    of = held(TEXTS[text])
    q, k, v = drawn(of)
    clean, clean_lse = call(of, q, k, v)
    for x, name in ((k, "k"), (v, "v")):
        if what in (name, "both"):
            x[:, :, token] = NAN
    out, lse = call(of, q, k, v)
    kept = mask_of(of)[:, :, token]
    may = reached(of, kept) if path == "kernels" and what != "k" else kept
    assert out[0][kept].isnan().all()
    assert same(out, clean, ~may)
    assert same(lse, clean_lse, ~kept if what != "v" else torch.ones_like(kept))
    assert what == "v" or lse[0][kept].isnan().all()


@CPU
@pytest.mark.parametrize("value", [INF, -INF])
@pytest.mark.parametrize("call", [attention, paged])
def test_infinite_values(call: Callable[..., Results], value: float, path: str) -> None:
    """A weight of it is infinite, of both signs NaN; and it is only the number of that dimension."""
    of = held(TEXTS["tokens"])
    q, k, v = drawn(of)
    clean, clean_lse = call(of, q, k, v)
    v[:, :, 40, 5], v[:, :, 44, 5], v[:, :, 44, 7] = value, -value, NAN
    out, lse = call(of, q, k, v)
    kept = mask_of(of)
    one, other = kept[:, :, 40], kept[:, :, 44]
    assert same(lse, clean_lse, torch.ones_like(one))
    assert (out[0, ..., 5][one & ~other] == value).all() and (out[0, ..., 5][other & ~one] == -value).all()
    assert out[0, ..., 5][one & other].isnan().all() and out[0, ..., 7][other].isnan().all()
    rest = [n for n in range(of.pattern.head_dim) if n not in (5, 7)]
    assert same(out[..., rest], clean[..., rest], torch.ones_like(one)) and same(out, clean, ~(one | other))


@pytest.mark.parametrize(
    ("path", "text", "dtype"),
    [
        ("kernels", "tokens", torch.float16),
        *product(("compiled", "torch"), ("tokens", "dense"), (torch.float16, torch.bfloat16, torch.float64)),
    ],
    indirect=["path"],
)
def test_every_type(text: str, dtype: torch.dtype, path: str) -> None:
    of = held(TEXTS[text])
    q, k, v = drawn(of, dtype=dtype)
    clean, _ = attention(of, q, k, v)
    k[:, :, 37], v[:, :, 90] = INF, NAN
    out, _ = attention(of, q, k, v)
    kept = mask_of(of)[:, :, 37] | mask_of(of)[:, :, 90]
    may = reached(of, kept) if path == "kernels" else kept
    assert out[0][kept].isnan().all() and same(out, clean, ~may)


@pytest.mark.parametrize("tokens", [1, 3, 40])
@pytest.mark.parametrize("text", ["tokens", "strided"])
def test_decoding(text: str, tokens: int, path: str) -> None:
    """Every key that no query keeps is NaN: as if none were."""
    of = held(TEXTS[text])
    q, k, v = drawn(of)
    clean, clean_lse = paged(of, q, k, v, tokens)
    kept = mask_of(of)[:, -tokens:].any(1).unflatten(0, (of.pattern.kv_heads, -1)).any(1)  # [kv heads, keys]
    assert not kept.all()
    k[0][~kept], v[0][~kept] = NAN, -INF
    out, lse = paged(of, q, k, v, tokens)
    everywhere = torch.ones_like(lse[0], dtype=torch.bool)
    assert same(out, clean, everywhere) and same(lse, clean_lse, everywhere)


@pytest.mark.parametrize(
    ("path", "text", "what"),
    [
        *(("kernels", *case) for case in (("tokens", "k"), ("tokens", "v"), ("both_ways", "v"))),
        *product(("compiled", "torch"), ("tokens", "dense", "both_ways"), ("k", "v", "q", "dout", "dlse")),
    ],
    indirect=["path"],
)
def test_gradients(text: str, what: str, path: str) -> None:
    """On the CPU, NaN at one token: its own row or the rows that keep it, and the keys that these keep, are NaN; all
    others as if these rows were not there. In kernels: no other key's gradient but of those that such a row keeps."""
    of, token = held(TEXTS[text]), 60
    inputs = drawn(of)
    dout, dlse = weights(inputs[0], inputs[0].shape[:3])
    given = dict(zip(("q", "k", "v", "dout", "dlse"), (*inputs, dout, dlse), strict=True))
    kept = mask_of(of)
    lost = kept[:, :, token].clone() if what in "kv" else torch.zeros(kept.shape[:2], dtype=torch.bool)
    lost[:, token] |= what not in "kv"
    if path == "kernels" and what == "v":  # the output of all of them is NaN
        lost = reached(of, lost)
    for x in (dout, dlse):
        x[0][lost] = 0.0
    if what in "kv":
        given[what][:, :, token] = 0.0
    clean = without(of, kept, lost, given)
    given[what][:, :, token] = NAN
    if what in "kv":  # what had no weight in the clean run has it now
        again, again_lse = weights(inputs[0], inputs[0].shape[:3])
        dout.copy_(again)
        dlse.copy_(again_lse)
    dq, dk, dv = gradients(lambda *x: attention(of, *x), (given["q"], given["k"], given["v"]), dout, dlse)
    keys = (kept & lost[:, :, None]).any(1).unflatten(0, (of.pattern.kv_heads, -1)).any(1)
    assert dq[0][lost].isnan().all()
    may = reached(of, lost) if path == "kernels" else lost
    for x, y, gone in ((dq, clean[0], may), (dk, clean[1], keys), (dv, clean[2], keys)):
        near = (x[0][~gone] - y[0][~gone]).norm()
        assert near <= 2e-6 * y[0][~gone].norm(), (near, y[0][~gone].norm())
    if path != "kernels":
        assert dk[0][keys].isnan().all() and dv[0][keys].isnan().all()


def without(of: Held, kept: Tensor, lost: Tensor, given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """dq, dk and dv in fp64 when rows that are lost weigh nothing."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Results:
        out, lse = reference.attention(of.pattern, q, k, v)
        return out.masked_fill(lost[None, ..., None], 0.0), lse.masked_fill(lost[None], 0.0)

    dlse = given["dlse"].masked_fill(~kept.any(-1), 0.0)
    return gradients(attend, [given[name].double() for name in "qkv"], given["dout"].double(), dlse.double())


@pytest.mark.parametrize("steps", [[110, *[1] * 40], [70, 40, 40]], ids=["steps", "chunks"])
@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize("text", ["tokens", "strided"])
def test_the_cache(text: str, what: str, steps: list[int]) -> None:
    """Tokens here and there are NaN or infinite: rows that keep one are NaN, all others as without; also when the cache
    was forked in between."""
    of = held(TEXTS[text])
    q, k, v = drawn(of)
    odd = torch.zeros(LENGTH, dtype=torch.bool)
    odd[[3, 37, 38, 100, 131]] = True
    given = [x.clone() for x in (q, k, v)]
    for x, name in zip(given[1:], "kv", strict=True):
        if what in (name, "both"):
            x[:, :, odd] = torch.tensor([NAN, INF, -INF, INF, NAN])[:, None]
    outs = []
    for tensors in ((q, k, v), given):
        cache, parts, first = of.package.KVCache(1), [], 0
        for n, count in enumerate(steps):
            parts.append(cache.step(*(x[:, :, first : first + count] for x in tensors)))
            cache, first = cache.fork([0]) if n % 7 == 3 else cache, first + count
        outs.append(torch.cat(parts, 2)[0])
    lost = mask_of(of)[:, :, odd].any(-1)
    assert not outs[1][lost].isfinite().all(-1).any()
    assert torch.equal(outs[1][~lost], outs[0][~lost]) and outs[0].isfinite().all()


@CPU
def test_the_control(path: str) -> None:
    """A key that every row keeps reaches all; and one number of q its own row."""
    of = held(TEXTS["strided"])
    q, k, v = drawn(of)
    clean, _ = attention(of, q, k, v)
    q[0, 1, 30, 2] = NAN
    out, lse = attention(of, q, k, v)
    row = torch.zeros(out.shape[1:3], dtype=torch.bool)
    row[1, 30] = True
    assert out[0][row].isnan().all() and lse[0][row].isnan().all() and same(out, clean, ~row)
