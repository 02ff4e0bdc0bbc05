"""What people and programs are told: verdicts, promises, explanations, differences and reports."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from patterncc.analysis.explain.explain import explain
from patterncc.analysis.explain.report import Report, junit, markdown
from patterncc.analysis.geometry.budget import Budget
from patterncc.analysis.geometry.finite import kept_tokens
from patterncc.analysis.verify import PROPERTIES, failed, prove_promises, verify
from patterncc.ir.layout import Layout
from patterncc.language import load, loads
from patterncc.passes import lower
from tests.analysis import oracle
from tests.analysis.patterns import GALLERY, by_scope, one, s2


def test_phi3_small_holds_and_fails_with_twice_the_stride():
    given = load(GALLERY / "phi3_small.yaml")
    assert not failed(verify(lower(given), "coverage"), "coverage", given.promises)
    wider = loads(given.source.replace("stride: 8", "stride: 16"))
    bad = failed(verify(lower(wider), "coverage"), "coverage", wider.promises)
    assert [(verdict.scope, verdict.layers[:2]) for verdict in bad] == [("layer", (0, 2))]
    assert bad[0].witness is not None and (bad[0].witness.row, bad[0].witness.column) == (16, 0)


@pytest.mark.parametrize("path", sorted(GALLERY.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_gallery_keeps_its_promises(path: Path):
    given = load(path)
    verdicts = prove_promises(lower(given), given.promises)
    assert verdicts and not failed(verdicts, "promises", given.promises)
    for verdict in verify(lower(given), "all"):
        told = json.loads(json.dumps(verdict.to_json()))
        assert {"property", "scope", "layer", "holds", "proof", "witness", "note"} <= set(told)
        assert (told["holds"] is False) == (told["witness"] is not None) or told["property"] == "balance"


def test_promises():
    window = one("d<4")
    assert [v.property for v in prove_promises(window, None)] == ["rows"], (
        "non-empty rows unless the file says otherwise"
    )
    assert prove_promises(window, {}) == (), "nothing"
    broken = {"coverage": "layer", "rows": "nonempty", "kv": "monotone", "reach": 4}
    verdicts = prove_promises(window, broken)
    assert [v.property for v in failed(verdicts, "promises", broken)] == ["coverage", "reach"]
    assert [v.scope for v in prove_promises(window, {"kv": "group", "coverage": "model"})] == ["group", "model"]


def test_what_is_promised_decides_all():
    window = one("d<4")
    verdicts = verify(window, "all")
    assert {v.property for v in verdicts} == set(PROPERTIES) - {"promises", "all"}
    assert not failed(verdicts, "all", {"rows": "nonempty", "kv": "monotone"}), "no far context is no fault"
    assert {v.property for v in failed(verdicts, "all", {"coverage": "model"})} == {"coverage"}
    assert failed(verify(window, "coverage"), "coverage"), "asked for by name, it fails"


def test_what_is_undecided_is_not_held():
    drawn = verify(
        one("d<2 | 2<=d & j<1 | random 1 seed 3", causal=True), "kv", scopes=("head",), budget=Budget(rows=2)
    )
    assert drawn[0].holds is None and drawn[0].proof == "undecided beyond 128 tokens"
    assert failed(drawn, "kv") and failed(drawn, "promises", {"kv": "monotone"})
    assert not failed(drawn, "all", {}), "but nobody relies on it"
    told = str(explain(one("d<2"), drawn[0]))
    assert told == "1 head: undecided beyond 128 tokens: no key is taken up again up to there"


def test_random_parts_are_decided_as_far_as_is_said():
    covered = by_scope(verify(one("all | random 2 seed 1"), "coverage"))["layer"]
    assert covered.holds is True and covered.proof == "for every length", "the other parts alone prove it"
    missing = by_scope(verify(one("d<2 | random 1 seed 1"), "coverage"))["layer"]
    assert missing.note.endswith("random parts and masks aside, no block is kept from distance 2 on")
    assert missing.holds is False and missing.proof == "smallest witness"
    rows = verify(one("1<=d | random 1 seed 1"), "rows")[0]
    assert rows.holds is False and rows.witness is not None and rows.witness.column is None


def test_a_random_part_is_looked_at_beyond_the_reach_of_the_other_parts():
    layout = Layout.parse("random 3 seed 67")
    classes = oracle.classes_of([[layout]], block=16, causal=True, kv_heads=1)
    verdict = by_scope(verify(classes, "kv"))["head"]
    brute = oracle.smallest_return(kept_tokens(layout, causal=True, block=16, tokens=320))
    assert verdict.holds is False and verdict.witness and brute is not None
    assert (verdict.witness.query_token, verdict.witness.key_token) == brute


def test_what_the_other_heads_keep_a_random_head_cannot_take_up_again():
    heads = [Layout.parse("j%2==0 | random 2 seed 1"), Layout.parse("j%2==1 | sink 20 tokens")]
    classes = oracle.classes_of([heads], block=16, causal=True, kv_heads=1)
    verdict = by_scope(verify(classes, "kv"))["group"]
    assert (verdict.holds, verdict.proof) == (True, "for every length")


def test_not_causal():
    assert by_scope(verify(one("all", causal=False), "coverage"))["layer"].holds is True
    ahead = by_scope(verify(one("d<4", causal=True), "causal"))["layer"]
    assert ahead.holds is True
    looking = verify(one("-1<=d<4", causal=False), "causal")[0]
    assert looking.witness is not None and (looking.witness.query_token, looking.witness.key_token) == (0, 1)


def test_an_unknown_property():
    with pytest.raises((KeyError, ValueError), match="speed"):
        verify(one("all"), "speed")


def test_reports():
    given = s2("g")
    classes = lower(given)
    verdicts = verify(classes, "all")
    bad = failed(verdicts, "coverage")
    report = Report("x|y", verdicts, bad, (str(explain(classes, bad[0], given)),))
    suite = ElementTree.fromstring(junit([report]))
    assert suite.get("failures") == "1" and len(suite.findall(".//testcase")) == len(verdicts)
    failure = suite.find(".//failure")
    assert failure is not None and "row 24, column 8" in (failure.get("message") or "")
    text = markdown([report])
    assert "| coverage | layer | 0 | fails | row 24, column 8 (token 1536 to 512) |" in text
    assert "> stride 16 with 8 KV heads" in text
    assert all(line.seconds >= 0 for line in report.lines())
