"""Explanations of what fails, and the changes that are proposed: each is proved."""

from __future__ import annotations

import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from patterncc.analysis.costs.forecast import forecast
from patterncc.analysis.costs.price import price
from patterncc.analysis.explain.explain import explain, explanations
from patterncc.analysis.explain.mend import mends
from patterncc.analysis.explain.paged import paged_explanations
from patterncc.analysis.explain.report import Report, junit, markdown
from patterncc.analysis.verdict import Verdict
from patterncc.analysis.verify import failed, verify
from patterncc.language import load, loads
from patterncc.passes import lower
from patterncc.pipeline import BrokenPromise, keep_promises
from patterncc.reference import keeps
from tests.analysis.patterns import GALLERY, by_scope, pattern, s2


def test_half_of_the_far_context_is_kept_by_no_head():
    """32 heads, 8 KV heads, stride 16, offset g: the known fact, with its witness and its mends."""
    given = s2("g")
    classes = lower(given)
    verdict = by_scope(verify(classes, "coverage"))["layer"]
    assert verdict.holds is False and verdict.witness is not None
    assert verdict.witness.to_json() == {"row": 24, "column": 8, "query_token": 24 * 64, "key_token": 8 * 64}
    assert "residues 8-15 of 16" in verdict.note and "from distance 16 on" in verdict.note
    text = str(explain(classes, verdict, given))
    assert text.startswith("stride 16 with 8 KV heads: residues 8-15 of 16 are kept by no head from distance 16 on")
    assert "50.0% of all old blocks" in text
    assert "use stride 8 (67.5 MiB, 13.8%), or head 31 dense (" in text
    assert "), or offset: h (131 MiB, 7.7%), or 16 KV heads (" in text
    assert text.endswith(": KV cache and kept pairs at 131,072 tokens, now 35.8 MiB, 7.7%")


def test_offset_h_holds_in_the_layer_and_not_in_a_group():
    classes = lower(s2("h"))
    verdicts = by_scope(verify(classes, "coverage"))
    assert {scope: verdict.holds for scope, verdict in verdicts.items()} == {
        "layer": True,
        "group": False,
        "model": True,
    }
    assert verdicts["group"].heads == (4, 5, 6, 7), "of all KV heads the one with the smallest witness"
    assert not failed(tuple(verdicts.values()), "coverage")


def test_every_mend_is_proved_and_can_be_typed_in():
    given = s2("g")
    verdict = by_scope(verify(lower(given), "coverage"))["layer"]
    found = mends(given, verdict)
    assert len(found) == 4 and all(len(mend.changes) == 1 for mend in found)
    for mend in found:
        again = by_scope(verify(lower(loads(mend.source)), "coverage"))["layer"]
        assert again.holds is True, mend.source


def test_offsets_that_turn_with_the_layers_are_proposed():
    """What all layers together must cover costs a quarter of what each layer would."""
    given = s2("g", layers=32, promises="{coverage: layer}")
    found = {str(mend): mend for mend in mends(given, by_scope(verify(lower(given), "coverage"))["layer"])}
    turning, by_head = found["offset: g + 8 * (l % 2) with coverage: model"], found["offset: h"]
    assert round(turning.price.kv_bytes / 2**30, 2) == 1.12 and round(by_head.price.kv_bytes / 2**30, 2) == 4.09
    assert turning.price.density == pytest.approx(by_head.price.density, rel=0.01)
    changed = loads(turning.source)
    assert changed.promises == {"coverage": "model"}
    verdicts = by_scope(verify(lower(changed), "coverage"))
    assert verdicts["model"].holds is True and verdicts["layer"].holds is False
    only = by_scope(verify(lower(given), "coverage"))["model"]
    assert "offset: g + 8 * (l % 2)" in [str(mend) for mend in mends(given, only)], "of the model, it is no weaker"


def test_they_turn_within_the_layers_that_have_them():
    """Every second layer is a window: an offset by l % 2 would never turn, one by l // 2 does."""
    source = s2("g", layers=8).source + 'layouts: [{layers: "1::2", shards: [{heads: all, local: 4}]}]\n'
    given = loads(source)
    assert len(bad := failed(verify(lower(given), "coverage"), "coverage")) == 2
    found = [str(mend) for mend in mends(given, {v.scope: v for v in verify(lower(given), "coverage")}["model"])]
    assert any("g + 8 * (l // 2 % 2)" in text for text in found), (found, bad)
    assert not any("(l % 2)" in text for text in found)


def test_mends_are_ranked_by_what_they_keep():
    given = s2("g")
    found = mends(given, by_scope(verify(lower(given), "coverage"))["layer"])
    costs = [(mend.price.kv_bytes, mend.price.density) for mend in found if "KV heads" not in str(mend)]
    assert costs == sorted(costs) and len(costs) == 3
    assert "KV heads" in str(found[-1]), "what asks for another model comes last"


def test_a_mend_names_the_heads_that_it_is_for():
    head = "pattern: 1\nname: x\nheads: 2\nblock: 16\n"
    given = loads(head + "shards: [{heads: 0, stride: 4}, {heads: 1, stride: 3}]\n")
    verdict = verify(lower(given), "rows")[0]
    assert str(mends(given, verdict)[0]) == "local: 1 for heads 0 and local: 1 for heads 1"


def test_looking_for_mends_ends(monkeypatch: pytest.MonkeyPatch):
    """128 heads of 69 different strides; and with no try at all."""
    entries = [f"{{heads: {h}, local: 4, stride: {6 + h % 69}, offset: {h % 5}}}" for h in range(128)]
    given = loads("pattern: 1\nname: x\nheads: 128\nblock: 16\nshards: [" + ", ".join(entries) + "]\n")
    verdict = by_scope(verify(lower(given), "coverage"))["layer"]
    assert verdict.holds is False
    start = time.process_time()
    mends(given, verdict)
    assert time.process_time() - start < 3, "0.3 seconds are the aim; a busy machine is allowed for"
    monkeypatch.setattr("patterncc.analysis.explain.mend.TRIES", 0)
    assert mends(s2("g"), by_scope(verify(lower(s2("g")), "coverage"))["layer"]) == ()


@pytest.mark.parametrize("path", sorted(GALLERY.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_price_is_what_the_forecast_says(path: Path):
    classes = lower(load(path))
    told, model = price(classes, 5000, "fp32"), forecast(classes, 5000, "fp32").model
    assert told.kv_bytes == model["kv_bytes_kept"]
    assert told.density == pytest.approx(model["density"], rel=1e-12)


def test_what_is_said_of_several_layers_is_said_once():
    local = "shards: [{heads: all, local: %d, stride: 16, offset: g}]"
    layouts = [f"{{layers: {layers}, {local % n}}}" for layers, n in (("0-1", 4), ("2-3", 5), ("4-5", 4))]
    head = "pattern: 1\nname: x\nheads: 8\nblock: 16\nlayers: 6\npromises: {coverage: layer}\n"
    given = loads(head + "layouts: [" + ", ".join(layouts).replace("layers: 4-5", "layers: 4") +
                  ", {layers: 5, shards: [{heads: 0-3, local: 4, stride: 16, offset: g}, "
                  "{heads: 4-7, local: 4, stride: 16, offset: 7 - g % 4}]}]\n")  # fmt: skip
    classes = lower(given)
    bad = failed(verify(classes, "coverage"), "coverage", given.promises)
    lines = explanations(classes, bad, given)
    assert len(lines) == len(set(lines)) == 2
    assert lines[0].startswith("layers 0-1, 4-5: stride 16") and lines[1].startswith("layers 2-3: stride 16")


def test_the_summary_says_what_decides():
    """Promises decide; rows that fail beside them are counted, not passed over."""
    given = s2("h", promises="{coverage: layer}")
    classes = lower(given)
    verdicts = verify(classes, "all", promises=given.promises)
    report = Report("x", verdicts, failed(verdicts, "all", given.promises), asked="all", promises=given.promises)
    said = "its promises hold; 1 property that it does not promise fails: coverage (group)"
    assert report.failed == () and report.summary == said
    assert f"- **x**: {said}\n" in markdown([report])
    suite = ElementTree.fromstring(junit([report]))
    assert [entry.text for entry in suite.findall("testsuite/system-out")] == [said]
    few = verify(classes, "coverage")
    assert Report("x", few, failed(few, "coverage"), asked="coverage").summary == (
        "coverage holds where it decides; 1 scope that does not decide fails: coverage (group)"
    )
    held = tuple(verdict for verdict in few if verdict.holds)
    assert Report("x", held, ()).summary == "all held"
    assert Report("x", few, (), asked="all", promises={}).summary.startswith("it promises nothing; 1 property")
    undecided = Verdict("reach", "model", (0,), None, "")
    assert "1 property that it does not promise is undecided: reach" in Report("x", (undecided,), ()).summary


def test_the_default_promise_is_explained():
    given = loads("pattern: 1\nname: x\nheads: 1\nblock: 16\nshards: [{heads: all, stride: 4}]\n")
    classes = lower(given)
    with pytest.raises(BrokenPromise) as raised:
        keep_promises(given, classes)
    text = str(raised.value)
    assert text.startswith("<text>:5:1: rows is promised (by every file without `promises`) and does not hold")
    assert "\n  5 | shards: [" in text
    assert "`promises: {}` promises nothing" in text
    own = loads(given.source + "promises: {rows: nonempty}\n")
    with pytest.raises(BrokenPromise) as raised:
        keep_promises(own, classes)
    assert "without `promises`" not in str(raised.value)


def test_two_changes_when_one_does_not_do():
    given = pattern("local: 4", "stride: 16", "offset: 2 * g", heads=8, kv_heads=4)
    verdict = by_scope(verify(lower(given), "coverage"))["layer"]
    found = [mend for mend in mends(given, verdict) if len(mend.changes) == 2]
    assert [str(mend) for mend in found] == ["stride 8 and offset: h"]


@pytest.mark.parametrize(
    ("lines", "property", "scope", "expected"),
    [
        (("local: 4", "strides: [{every: 8, offset: h, anchor: query}]"), "kv", "head", "anchor: key"),
        (("local: 4", "strides: [{every: 8, offset: h, from: 8}]"), "kv", "head", "from: 0"),
        (("stride: 4", "offset: h"), "rows", "head", "local: 1"),
    ],
)
def test_mends_of_other_properties(lines: tuple[str, ...], property: str, scope: str, expected: str):
    given = pattern(*lines, heads=8, kv_heads=8)
    verdict = by_scope(verify(lower(given), property))[scope]
    assert verdict.holds is False
    assert expected in [str(mend) for mend in mends(given, verdict)]


@pytest.mark.parametrize("length", [1, 700, 3001, 4096])
def test_pages_and_the_compact_cache_are_told_apart_where_kv_heads_differ(length: int):
    """With both numbers, as counted key by key from the definition."""
    given = s2("g", layers=1)
    t, t2 = np.arange(length - 1, length + 40 * given.block), np.arange(length)
    later = np.stack([keeps(given, 0, head, t, t2).any(0) for head in range(given.heads)])  # [heads, keys]
    kept = later.reshape(given.kv_heads, -1, length).any(1).mean()
    live = later.any(0)
    paged = min(16 * sum(live[p : p + 16].any() for p in range(0, length, 16)) / length, 1)
    told = paged_explanations(lower(given), length)
    if length < 1024:  # the window holds all
        assert told == () and paged == pytest.approx(kept)
    else:
        (line,) = told
        assert f"KVCache holds {kept:.1%} of the keys" in line and f"(vLLM) {paged:.1%}" in line and paged > kept


def test_pages_need_no_word_where_kv_heads_agree():
    same = pattern("local: 2", heads=4, kv_heads=2)
    assert paged_explanations(lower(same), 4096) == ()
