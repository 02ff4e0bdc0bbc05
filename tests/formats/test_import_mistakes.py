"""Mistakes in what is imported, shown in their file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from patterncc.advice.shapes import read_model
from patterncc.cli.run import run
from patterncc.errors import UsageError
from patterncc.formats.importing import import_pattern


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "this is not JSON"),
        ("a.json", "[" * 100_000, "nested too deeply|not JSON"),
        ("a.json", "3", "holds no object"),
        ("a.json", "{}", "does not say `num_hidden_layers`"),
        ("a.json", '{"sparse_attention": {"mode": "fixd"}}', "did you mean fixed"),
        ("a.json", '{"sparse_attention": 3}', "is no object"),
        ("a.json", '{"sparse_attention": {"mode": "variable", "local_window_blocks": [2, 4]}}', "different sizes"),
        ("a.tsv", "1 2\n3\n", "line 2 has 1 number;"),
        ("a.tsv", "x", "expected a number for each KV head"),
        ("a.npy", "junk", r"a.npy: the file cannot be read as a mask\n  help: it is none that numpy.save wrote"),
        ("a.npz", "junk", "none that numpy.savez wrote"),
        ("a.pt", "junk", "none that torch.save wrote"),
        ("a.yaml", "pattern: 1", "a pattern is used as it is"),
        ("a.json", '[{"0": ["vertical_and_slash", 1, 2, 0.1]}]', "depend on the data"),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str) -> None:
    import re

    (tmp_path / name).write_text(text)
    assert run(["import", str(tmp_path / name)]) == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "place", "marked"),
    [
        ('{"model_type": "llama",\n\t"num_attention_heads": -3}', "2:25", "-3"),
        ('{"num_hidden_layers": 2, "num_attention_heads": 4.5}', "1:49", "4.5"),
        (  # of the section that is read
            '{"vision_config": {"num_attention_heads": 4}, "model_type": "gemma3",\r\n'
            '"text_config": {"num_attention_heads": "é"}}',
            "2:40",
            '"é"',
        ),
        (  # where the file itself has heads, no section is read
            '{"text_config": {"head_dim": 0}, "num_attention_heads": 4, "head_dim": -1, "num_hidden_layers": 1}',
            "1:72",
            "-1",
        ),
        ('\ufeff{"num_hidden_layers": 1, "num_hidden_layers": 0}', "1:47", "0"),  # the last one counts
        ('{"model_type": "llama", "layer_types": ["full_attention", "ssm"], "num_hidden_layers": 2}', "1:59", '"ssm"'),
        ('{"sparse_attention": {"mode": "fixed",\n "block": 17}}', "2:11", "17"),
        ('[{"0": ["stream_llm", 1, 2, 0]},\n {"0": ["slash", 1, 2, 0]}]', "2:9", '"slash"'),
        ('{"a": 1,}', "1:9", "}"),
    ],
)
def test_a_wrong_value_is_shown_in_its_file(tmp_path: Path, text: str, place: str, marked: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode())
    with pytest.raises(UsageError) as caught:
        import_pattern(str(path))
    only = caught.value.diagnostics[0]
    assert str(caught.value).startswith(f"{path}:{place}: ")
    assert only.span and only.source_line and only.source_line[only.span.column - 1 : only.span.end - 1] == marked


@pytest.mark.parametrize("command", ["import config.json", "suggest --model . -n 1k", "forecast demo --model . -n 1k"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"num_hidden_layers": 2}', "config.json: the file does not say `num_attention_heads`\n  help: it needs"),
        ("[]", "config.json: the file "),
        (
            '{"num_hidden_layers": 0, "num_attention_heads": 4}',
            "config.json:1:23: `num_hidden_layers` is `0`; expected a whole number from 1",
        ),
        ('{"num_hidden_layers": ' + "1" * 5000 + "}", "config.json: this is not JSON as configurations have it"),
    ],
)
def test_every_command_names_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    text: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(text)
    assert run(command.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("read", [lambda path: import_pattern(str(path)), read_model])
def test_both_readers_of_a_configuration_name_the_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "mimo_v2_flash", "num_attention_heads": 4, "num_hidden_layers": 2}')
    with pytest.raises(UsageError, match="cannot be said: kv_heads 8 must divide heads, 4") as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_layers_without_rotation_are_a_list(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "llama4_text", "num_hidden_layers": 2,\n"no_rope_layers": -1}')
    with pytest.raises(UsageError, match=r"config\.json:2:19: `no_rope_layers` is `-1`; expected a list"):
        import_pattern(str(path))


def test_what_a_file_means_and_cannot_be_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"num_hidden_layers": 1, "num_attention_heads": 17, "num_key_value_heads": 4}')
    with pytest.raises(UsageError) as caught:
        import_pattern(str(path))
    said = "the source means a pattern that cannot be said: kv_heads 4 must divide heads, 17\n  help: did you mean 1?"
    assert str(caught.value) == f"{path}: {said}"


def test_a_line_of_gates_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("0.5 1\n0.5 x\n")
    with pytest.raises(UsageError, match=r"a\.tsv:2:1: line 2 is `0\.5 x`; expected a number"):
        import_pattern(str(tmp_path / "a.tsv"))
