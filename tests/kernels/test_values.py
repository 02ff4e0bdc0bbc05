"""Values of another width than keys, narrower and wider, on every path: against dense attention in fp64."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from patterncc import reference
from tests.kernels.held import (
    GROUPS,
    HEAD,
    TOLERANCE,
    Held,
    check_backward,
    check_forward,
    check_lse,
    check_out,
    gradients,
    held,
    never_read,
    off,
    tensors,
    weights,
)
from tests.kernels.test_serving import check_paged, paged
from tests.kernels.test_strays import ints

WIDTHS = {"narrow": (24, 16), "wide": (16, 40), "mla": (192, 128)}
SHAPES = {  # arithmetic with sums of several items in slots, arithmetic to the token, a table, both directions
    "strided": "shards: [{heads: all, local: 2, stride: 3, offset: g}]",
    "tokens": "shards: [{heads: 0, local: 21 tokens, sink: 5 tokens}, {heads: rest, dense: true}]",
    "by_group": "shards: [{heads: 0-1, local: 21 tokens, sink: 5 tokens}, {heads: rest, dense: true}]",
    "drawn": "shards: [{heads: all, local: 20 tokens, random: {blocks: 1, seed: 3}}]",
    "both_ways": "causal: false\nshards: [{heads: all, local: {before: 20 tokens, after: 9 tokens}}]",
    "capped": "softcap: 1.5\nshards: [{heads: all, local: 1, stride: 4, offset: h}]",
}
INF = float("inf")


def of_widths(width: str, shape: str, head: str = HEAD) -> Held:
    dim, v_dim = WIDTHS[width]
    return held(head.replace("head_dim: 16", f"head_dim: {dim}\nv_head_dim: {v_dim}") + SHAPES[shape])


CASES = [("narrow", shape) for shape in SHAPES if shape != "by_group"] + [
    ("wide", "strided"),
    ("wide", "drawn"),
    ("mla", "strided"),
]


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("width", "shape"), CASES)
def test_attention(width: str, shape: str) -> None:
    """Output, LSE and gradients, in several memory layouts."""
    of = of_widths(width, shape)
    check_forward(of, tensors(of.pattern, 37, 90, batch=2 - (width == "mla")))
    check_backward(of, tensors(of.pattern, 37, 61, how="odd" if width == "wide" else "tokens first"))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("width", ["narrow", "wide"])
def test_what_no_query_keeps_is_never_read(width: str) -> None:
    of = of_widths(width, "strided")
    inputs = tensors(of.pattern, 20, 120)
    true, true_lse = reference.attention(of.pattern, *inputs)
    q, k, v = never_read(of, [x.clone() for x in inputs])
    out, lse = of.package.attention(q, k, v, return_lse=True)
    check_out(out, true, true_lse)
    check_lse(lse, true_lse)
    dout, dlse = weights(q, q.shape[:3], of.pattern.v_head_dim)
    found = gradients(lambda *x: of.package.attention(*x, return_lse=True), (q, k, v), dout, dlse)
    true = gradients(lambda *x: of.package.attention(*x, return_lse=True), inputs, dout, dlse)
    assert all(torch.equal(x, y) for x, y in zip(found, true, strict=True))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    of = of_widths("narrow", "strided")
    inputs = tensors(of.pattern, 50, dtype=dtype)
    out, lse = of.package.attention(*inputs, return_lse=True)
    true, true_lse = reference.attention(of.pattern, *inputs)
    assert out.dtype == dtype and off(out, true) <= 4 * TOLERANCE[dtype]  # torch's products round weights too
    check_lse(lse, true_lse)


def drawn(of: Held, queries: int, keys: int) -> list[Tensor]:
    make, p = torch.Generator().manual_seed(queries), of.pattern
    shapes = (queries, p.heads, p.head_dim), (keys, p.kv_heads, p.head_dim), (keys, p.kv_heads, p.v_head_dim)
    return [torch.randn(shape, generator=make) for shape in shapes]


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("width", "shape"), [("narrow", "strided"), ("wide", "drawn"), ("narrow", "both_ways")])
def test_varlen(width: str, shape: str) -> None:
    """Packed sequences; rows of none, before the first and behind the last, are NaN and give 0."""
    of = of_widths(width, shape)
    q_starts, k_starts = [5, 38, 38, 60], [17, 50, 57, 90]
    inputs = drawn(of, 71, 99)
    strays = [torch.ones(len(x), dtype=torch.bool) for x in inputs]
    for x, lost, starts in zip(inputs, strays, (q_starts, k_starts, k_starts), strict=True):
        lost[starts[0] : starts[-1]] = False
        x[lost] = float("nan")
    dout, dlse = weights(inputs[0], (of.pattern.heads, 71), of.pattern.v_head_dim)
    dout[strays[0]], dlse[:, strays[0]] = float("nan"), float("nan")
    lengths = ints(q_starts), ints(k_starts), 33, 33

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return of.package.attention_varlen(q, k, v, *lengths, return_lse=True)

    out, lse = attend(*inputs)
    grads = gradients(attend, inputs, dout, dlse)
    assert out.shape == (71, of.pattern.heads, of.pattern.v_head_dim)
    assert (out[strays[0]] == 0).all() and (lse[:, strays[0]] == -INF).all()
    for grad, lost in zip(grads, strays, strict=True):
        assert (grad[lost] == 0).all()
    for n in (0, 2):  # the sequence between has keys and no queries
        own = [slice(s[n], s[n + 1]) for s in (q_starts, k_starts, k_starts)]
        one = [x[at].transpose(0, 1)[None] for x, at in zip(inputs, own, strict=True)]
        true, true_lse = reference.attention(of.pattern, *one)
        check_out(out[own[0]].transpose(0, 1)[None], true, true_lse)
        check_lse(lse[None, :, own[0]], true_lse)
        rows = dout[own[0]].transpose(0, 1)[None], dlse[None, :, own[0]]
        true_grads = gradients(lambda *x: reference.attention(of.pattern, *x), [x.double() for x in one], *rows)
        for grad, at, y in zip(grads, own, true_grads, strict=True):
            assert off(grad[at].transpose(0, 1)[None], y) <= TOLERANCE[torch.float32]
    assert (grads[1][k_starts[1] : k_starts[2]] == 0).all() and (grads[2][k_starts[1] : k_starts[2]] == 0).all()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("width", "shape"), [("narrow", "tokens"), ("wide", "drawn")])
@pytest.mark.parametrize("layout", ["plain", "heads first"])
def test_paged(width: str, shape: str, layout: str) -> None:
    of = of_widths(width, shape)
    check_paged(of, paged(of, [(3, 70), (40, 40), (0, 20), (1, 1)], layout=layout))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("width", ["narrow", "wide"])
def test_decode(width: str, path: str) -> None:
    """The newest token of each request; in the kernels also by programs that share its keys."""
    of = of_widths(width, "tokens")
    batch = paged(of, [(1, 90), (1, 33)])
    where = batch.k_cache, batch.v_cache, batch.block_table, batch.seq_lens
    q = batch.q.reshape(2, 1, of.pattern.heads, of.pattern.head_dim)
    out, lse = of.package.decode(q, *where, return_lse=True)
    assert out.shape == (2, 1, of.pattern.heads, of.pattern.v_head_dim)
    for n, request in enumerate(batch.requests):
        true, true_lse = reference.attention(of.pattern, *request)
        check_out(out[n].transpose(0, 1)[None], true, true_lse)
        check_lse(lse[n][None], true_lse)
    if path == "kernels":
        launch, scale = of.part("launch.forward"), of.pattern.head_dim**-0.5
        parts, part_lse = launch.decode(q, *where, layer=0, scale=scale, head_offset=0, splits=3)
        assert off(parts, out) <= TOLERANCE[torch.float32] and (part_lse - lse).abs().max() <= 1e-6


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("max_length", [None, 120])
def test_kv_cache(max_length: int | None) -> None:
    """A prompt, then tokens one by one and some together: the attention of each, and the bytes of what is kept."""
    of = of_widths("narrow", "by_group", GROUPS)
    q, k, v = tensors(of.pattern, 80, batch=2)
    cache = of.package.KVCache(2, max_length=max_length)
    outs, first = [], 0
    for n in (45, 1, 1, 20, 1, 12):
        some = slice(first, first + n)
        outs.append(cache.step(q[:, :, some], k[:, :, some], v[:, :, some]))
        first += n
    true, true_lse = reference.attention(of.pattern, q, k, v)
    check_out(torch.cat(outs, 2), true, true_lse)
    numbers = of.pattern.head_dim + of.pattern.v_head_dim
    live = 80 + 5 + 21  # one KV head keeps all, the other nothing but its sink and its window, from the newest token on
    assert cache.bytes == 2 * live * numbers * 4 <= cache.allocated_bytes
    fork = cache.fork([1, -1, 0])
    assert fork.bytes == cache.bytes and fork.lengths.tolist() == [80, 0, 80]


def test_hopper_kernels_are_not_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, and on such a GPU, they leave values of another width to the plain kernels. A control: equal ones."""
    for values, is_written in (("", True), ("v_head_dim: 64\n", False)):
        text = HEAD.replace("head_dim: 16\n", f"head_dim: 128\n{values}") + SHAPES["strided"]
        hopper = held(text).part("launch.hopper")
        assert is_written == hopper.IS_WRITTEN_FOR
        monkeypatch.setattr(hopper, "is_hopper", lambda device: True)
        monkeypatch.setenv("PATTERNCC_KERNELS", "gluon")
        q, k, v = (torch.zeros(1, n, 64, 128, dtype=torch.float16) for n in (2, 1, 1))
        v = v[..., : 128 if is_written else 64].contiguous()
        out = torch.empty(1, 2, 64, v.shape[3], dtype=torch.float16)
        requests = held(text).part("launch.requests").Requests(1, 64, 64)
        assert hopper.takes(q, k, v, out, requests) == is_written


def test_the_gradients_of_keys_and_values_that_lie_apart(monkeypatch: pytest.MonkeyPatch, poisoned: None) -> None:
    """Keys with tokens outside heads and values the other way round: their gradients are laid out as they are."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    of = of_widths("narrow", "strided")
    q, k, v = tensors(of.pattern, 45, how="dense")
    k = k.transpose(1, 2).contiguous().transpose(1, 2)
    check_backward(of, (q, k, v))


BAD = {  # shapes of q, k and v, and what is said
    "values as wide as keys": ((2, 9, 24), (1, 9, 24), (1, 9, 24), "for v_head_dim 16; v has 24. Set v_head_dim in"),
    "keys as wide as values": ((2, 9, 16), (1, 9, 16), (1, 9, 16), "for head_dim 24; q has 16. Set head_dim in"),
    "other tokens": ((2, 9, 24), (1, 9, 24), (1, 8, 16), "one shape but for head_dim 24 and v_head_dim 16; got"),
}


@pytest.mark.parametrize("name", BAD)
def test_messages_name_the_width_that_is_wrong(name: str) -> None:
    of, (*shapes, said) = of_widths("narrow", "tokens"), BAD[name]
    q, k, v = (torch.zeros(1, *shape) for shape in shapes)  # type: ignore[misc]
    lengths = ints([0, 9]), ints([0, 9]), 9, 9
    pages = torch.zeros(1, 1, dtype=torch.int32), ints([9]), ints([0, 9])
    calls = [
        lambda: of.package.attention(q, k, v),
        lambda: of.package.attention_varlen(*(x[0].transpose(0, 1) for x in (q, k, v)), *lengths),
        lambda: of.package.attention_paged(q[0].transpose(0, 1), k.transpose(1, 2), v.transpose(1, 2), *pages),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=re.escape(said)):
            try:
                call()
            except ValueError as error:
                raise ValueError(str(error).replace("k_cache", "k").replace("v_cache", "v")) from error


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("width", ["narrow", "wide"])
def test_it_is_torchs_attention_with_the_dense_mask(width: str) -> None:
    """scaled_dot_product_attention in fp64, a witness that shares nothing with the reference."""
    of = of_widths(width, "tokens")
    q, k, v = tensors(of.pattern, 37, 60)
    mask = of.package.dense_mask(37, 60)
    given = (x.double() for x in (q, k, v))
    true = torch.nn.functional.scaled_dot_product_attention(*given, attn_mask=mask, enable_gqa=True)
    assert off(of.package.attention(q, k, v), true) <= TOLERANCE[torch.float32]
