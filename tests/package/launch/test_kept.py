"""Launches that Triton would drop without a word, and kernels that it would compile again."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.package.made import HEAD, compiled


def test_more_programs_than_triton_counts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It multiplies the grid's numbers in 32 bits and launches nothing where that is negative: outputs would hold what
    was in their memory."""
    pytest.importorskip("triton")
    _, package = compiled(HEAD + "shards: [{heads: all, local: 1}]")
    kept = importlib.import_module(f"{package.__name__}.launch.kept")
    monkeypatch.setattr(kept, "current_device", lambda: 0)
    launch = kept.Launch(torch.device("cuda", 0))
    with pytest.raises(ValueError, match=r"small: 32768 x 256 x 256 programs in one launch, .* fewer sequences"):
        launch(None, (1 << 15, 1 << 8, 1 << 8), (), (0,))
    with pytest.raises(TypeError):  # negative control: as many as there may be get as far as the kernel, which is none
        launch(None, ((1 << 31) - 1, 1, 1), (), (0,))


KEYS = """\
import importlib, sys
sys.path.insert(0, sys.argv[1])
package = sys.argv[2]
kept = importlib.import_module(f"{package}.launch.kept")
found = {}
for name in sys.argv[3:]:
    module = importlib.import_module(f"{package}.kernels.{name}")
    for title, kernel in vars(module).items():
        if title.startswith("attn_") and kernel.fn.__module__ == module.__name__:
            kept.hashed(kernel, set())
            found[title] = kernel.cache_key
print(sorted(found.items()))
"""


def test_kernels_are_found_compiled_whichever_was_first() -> None:
    """By other processes, that is, which ask for them in another order; under Triton 3.6 they were not."""
    pytest.importorskip("triton")
    _, package = compiled(HEAD + "shards: [{heads: all, local: 1}]")
    folder = str(Path(str(package.__file__)).parents[1])
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    names = "forward", "backward_dq", "hopper.forward"
    found: list[str] = []
    for order in (names, names[::-1]):
        command = [sys.executable, "-c", KEYS, folder, package.__name__, *order]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0] == found[1] and "attn_fwd_hopper" in found[0]


def test_a_kernel_is_hashed_before_it_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for it in a dictionary has Triton hash it."""
    pytest.importorskip("triton")
    _, package = compiled(HEAD + "shards: [{heads: all, local: 1}]")
    hopper, asked = importlib.import_module(f"{package.__name__}.launch.hopper"), list[str]()
    monkeypatch.setattr(hopper, "hashed", lambda kernel, seen: asked.append("hashed"))
    monkeypatch.setattr(hopper, "_launch", lambda *key: asked.append("key") or (lambda *given: None))
    hopper.launch(SimpleNamespace(arg_names=["x", "N"]), 1, {"x": torch.empty(1), "N": 1})
    assert asked == ["hashed", "key"]
