"""What is said of a run of the gpu suite: verdicts, the page, the README's table, and which family to take unasked."""

import pytest

from benchmarks import figures, report, targets
from benchmarks.gpu.shares import with_shares
from tests.benchmarks.test_suites import MACHINE

DENSE_SHARE = "forward, 16k tokens and more: share of the best dense kernel's FLOP/s, least"
DENSE = [
    {"what": "dense", "backend": name, "head_dim": 128, "direction": direction, "tflops": rate}
    for name, rate in (("flash", 400.0), ("cudnn", 500.0))
    for direction in ("forward", "backward")
]
LONG = {"case": "thin", "batch": 1, "tokens": 131072, "head_dim": 128, "block": 64, "density": 0.02}
GPU = {
    "ceilings": [{"what": "copy", "tb_per_s": 4.0}, *DENSE],
    "attention": [
        {**LONG, "direction": "forward", "ms": 1.0, "flash_ms": 30.0, "over_flash": 30.0, "tflops": 455.0},
        {**LONG, "direction": "backward", "ms": 3.0, "flash_ms": 60.0, "over_flash": 20.0, "tflops": 440.0},
        {**LONG, "tokens": 1 << 20, "note": "out of memory: 90 GiB"},
    ],
    "serving": [
        {
            "what": "decode",
            "case": "grouped",
            "requests": 64,
            "tokens": 16384,
            "tb_per_s": 3.6,
            "kept_bytes": 400_000_000,
        },
        {
            "what": "decode",
            "case": "apart",
            "requests": 16,
            "tokens": 32768,
            "tb_per_s": 3.2,
            "kept_bytes": 200_000_000,
        },
        {
            "what": "decode",
            "case": "grouped",
            "requests": 1,
            "tokens": 131072,
            "tb_per_s": 1.0,
            "kept_bytes": 8_000_000,
        },
    ],
    "host": [{"what": "attention", "host_us": 39.5}, {"what": "decode", "host_us": 55.0}],
    "peers": [
        {"peer": "flex", "direction": "forward", "over_peer": 1.4},
        {"peer": "flex", "direction": "backward", "over_peer": 1.1},
        {"peer": "dkernel", "note": "DKernel cannot be imported"},
    ],
    "first_call": [
        {"what": "nothing shipped", "caches": "empty", "import_s": 0.1, "forward_s": 2.0, "backward_s": 5.0}
    ],
}


def test_verdicts_of_the_gpu_suite():
    verdicts = {row["target"]: (row["value"], row["met"]) for row in targets.gpu(with_shares(GPU))}
    assert list(verdicts.values()) == [
        (455.0 / 500, None),  # of the best backend, forward and backward; the million tokens were not measured
        (440.0 / 500, None),
        (1.4, True),  # FlexAttention
        (1.1, False),
        (None, None),  # DKernel was not here
        (None, None),
        (None, None),  # nor were grouped heads measured
        (30.0, True),
        ((30.0 + 60.0) / (1.0 + 3.0), False),
        (0.8, False),  # the least of all decoding that keeps much
        (6.0, True),  # 8 MB at 1 and at 4 TB/s
        (39.5, True),
        (55.0, False),
        (None, None),
    ]


def test_grouped_heads_are_compared_with_ungrouped_ones_of_the_same_length():
    one = {"batch": 1, "tokens": 16384, "direction": "backward"}
    rows = [{**one, "case": "ancestor", "tflops": 300.0}, {**one, "case": "grouped", "tflops": 270.0}]
    rows.append({**one, "batch": 4, "case": "ancestor", "tflops": 400.0})
    [found] = [row for row in targets.gpu({"attention": rows}) if "grouped" in str(row["target"])]
    assert (found["value"], found["met"]) == (0.9, False)


def test_a_page_shows_figures_and_names_empty_cells(tmp_path):
    results = with_shares(GPU)
    report.save(tmp_path, "gpu", MACHINE, results, targets.gpu(results))
    report.render(tmp_path)
    page = (tmp_path / "gpu.md").read_text()
    assert "a processor, 2 cores; torch 2.13" in page
    assert "| decoding, 100 MB and more: share of the copy's bandwidth, least | >= 0.85 | 0.8 | not met |" in page
    assert "| thin | 1 | 131072 | backward |" in page and "0.88" in page
    assert "out of memory: 90 GiB" in page and "DKernel cannot be imported" in page


def test_the_readme_has_the_verdicts(tmp_path, monkeypatch):
    """Of a made-up run: each target with its goal, its figure and its verdict, between the markers and nowhere else."""
    readme = tmp_path / "README.md"
    readme.write_text(
        "above\n<!-- benchmarks cpu -->\n<!-- end -->\n<!-- benchmarks gpu -->\nold\n<!-- end -->\nbelow\n"
    )
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    results = with_shares(GPU)
    report.save(tmp_path, "gpu", MACHINE | {"accelerator": "a GPU", "commit": "abc"}, results, targets.gpu(results))
    report.fill_readme()
    text = readme.read_text()
    assert text.startswith("above\n") and text.endswith("<!-- end -->\nbelow\n") and "old" not in text
    for line in (
        f"| {DENSE_SHARE} | >= 0.9 | 0.91 | of 1 of 2 cells |",
        "| forward: over FlexAttention, least | >= 1.4 | 1.4 | met |",
        "| backward: over FlexAttention, least | >= 1.5 | 1.1 | not met |",
        "| forward: over DKernel, least | >= 1.4 |  |  |",
        "| decoding, less than that: microseconds over the copy's, most | < 15 | 6 | met |",
        "| decode: microseconds of Python a call | < 40 | 55 | not met |",
        "Measured on a GPU; torch 2.13, triton 3.9; commit abc.",
    ):
        assert f"\n{line}\n" in text, line


def test_pictures_are_drawn_from_whatever_there_is(tmp_path):
    pytest.importorskip("matplotlib")
    for name, results in (("all", with_shares(GPU)), ("nothing", {})):
        picture = figures.draw("gpu", {"machine": MACHINE, **results}, tmp_path / f"{name}.png")
        assert picture is not None and picture.read_bytes().startswith(b"\x89PNG")
    assert figures.draw("cpu", {"machine": MACHINE}, tmp_path / "cpu.png") is None
