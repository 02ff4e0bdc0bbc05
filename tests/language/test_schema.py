"""The JSON Schema accepts what `load` accepts, describes every key, and refuses what no pattern has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from patterncc import language
from patterncc.errors import PatternError

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parent.parent.parent
GALLERY = sorted((ROOT / "patterns").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = language.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def as_json(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", GALLERY, ids=lambda file: file.stem)
def test_the_gallery_is_accepted(file: Path, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(as_json(file))] == []
    language.load(file)


# What the schema can tell by itself, of the files of tests/mistakes.
TOLD = [
    "about_list", "block_60", "block_quoted", "causal_quoted", "dense_false", "expression_words", "heads_a_billion",
    "heads_missing", "heads_not_a_selector", "heads_true", "heads_zero", "keys_missing", "local_true", "local_zero",
    "globals_wrong", "promises_list", "promises_wrong", "random_number", "random_wrong", "shards_mapping",
    "shards_of_words", "stride_zero", "strides_mapping", "strides_wrong", "unit_kilobytes", "unknown_keys", "version_2",
    "version_missing", "layouts_without_shards", "mask_not_npy", "name_not_identifier",
]  # fmt: skip


@pytest.mark.parametrize("name", TOLD)
def test_mistakes_that_an_editor_can_show(name: str, validator: Any) -> None:
    assert list(validator.iter_errors(as_json(ROOT / "tests" / "mistakes" / f"{name}.yaml")))


HEAD = {"pattern": 1, "name": "demo", "heads": 8, "block": 64}
VALUES: dict[str, list[Any]] = {
    "heads": ["all", "rest", 3, [0, 5], "0-27", "1::2", "0-3, 5", [0, "1-2"], "::", "x", -1, True, [], None, "1;2"],
    "local": [1, "1024 tokens", "1 token", "h + 1", "2 * h tokens", 0, "four", None, True, {"before": 1}, [1], 1.5],
    "stride": [1, "h + 1", 0, "1 tokens", None, "x"],
    "offset": [0, "g", [0, 1], ["g", 0], [], None, "x", [None]],
    "sink": [1, "4 tokens", -1, "x"],
    "globals": [{"rows": [0, "1-2", "h"]}, {"rows": []}, {"rows": 0}, {"row": [0]}, 3, None],
    "random": [{"blocks": 1}, {"blocks": 1, "seed": 2}, {"seed": 2}, {"blocks": 0}, None],
    "strides": [[{"every": 2, "from": 1, "to": 3}], [{"every": 2, "distance_from": 1}], [], [{}], {"every": 2}],
}


def cases() -> Iterator[tuple[str, Any]]:
    for key, values in VALUES.items():
        for value in values:
            yield key, value


@pytest.mark.parametrize(("key", "value"), list(cases()))
def test_what_load_accepts_the_schema_accepts(key: str, value: Any, validator: Any) -> None:
    entry = {"heads": "all", "stride": 4} | {key: value}
    document = {**HEAD, "causal": not isinstance(value, dict) or "before" not in value, "shards": [entry]}
    said = not list(validator.iter_errors(document))
    try:
        language.loads(json.dumps(document))
    except PatternError:
        # The schema does not know which heads exist, nor what expressions come to.
        assert not said or key == "heads" or value in ("h + 1", "2 * h tokens")
    else:
        assert said


def test_every_key_is_described() -> None:
    schema = language.schema()
    for name, model in {"": schema, **schema["$defs"]}.items():
        assert model["additionalProperties"] is False, name
        for key, value in model["properties"].items():
            assert value.get("description"), f"{name}.{key}"
    assert "null" not in json.dumps(schema)
