"""Laws of templates and launches: a template is the package of its own pattern, and one compile serves every length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from patterncc import language
from patterncc.codegen.one_shape import index_map_of
from patterncc.codegen.specialise import set_index_map
from patterncc.codegen.template import templates
from patterncc.passes import lower
from patterncc.passes.choose_plan import choose_plan
from tests.harness import small
from tests.kernels.held import HEAD, Held, check_backward, check_forward, held, tensors

ROOT = Path(__file__).parents[2]
OF_TEMPLATES = small("template", head_dim=32, block=16)


@pytest.mark.interpret
def test_templates_run_as_they_stand(poisoned: None) -> None:
    """With their default constants they are the package of a pattern."""
    import codegen_templates.api.ops

    of = Held(language.loads(OF_TEMPLATES), codegen_templates.api.ops)
    check_forward(of, tensors(of.pattern, 20, 100))
    check_backward(of, tensors(of.pattern, 20, 60))


@pytest.mark.parametrize("file", ["kernels/index_map.py", "kernels/row_map.py"])
def test_the_index_map_of_a_templates_own_pattern_is_its_own(file: str) -> None:
    text, of_file = templates()[file].text, choose_plan(lower(language.loads(OF_TEMPLATES)))
    assert set_index_map(text, index_map_of(file, of_file)) == text
    other = choose_plan(lower(language.loads(OF_TEMPLATES.replace("stride: 4", "stride: 5"))))
    assert set_index_map(text, index_map_of(file, other)) != text


# Launches are recorded instead of run, on tensors without memory: what Triton would look a binary up by.
KEYS = """
import importlib, json, sys
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

folder, name, dim, lengths = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
sys.path.insert(0, folder)
backend, found = make_backend(GPUTarget("cuda", 90, 32)), {}

def run(self, *args, grid, warmup, **kwargs):
    binder = create_function_from_signature(self.signature, self.params, backend)
    _, specialization, options = binder(*args, **kwargs)
    found.setdefault(self.fn.__name__, set()).add(str(specialization) + str(options))

JITFunction.run = run
launch, launch_backward = (importlib.import_module(f"{name}.launch.{part}") for part in ("forward", "backward"))
launch.arch = launch_backward.arch = lambda device: "sm_90"
torch.Tensor.is_cuda = property(lambda self: True)  # else bfloat16 becomes float32, for the interpreter's sake
place = {"layer": 0, "scale": 0.25, "head_offset": 0, "kv_start": 0}
counts = []
for some in lengths:
    found.clear()
    for queries, keys in some:
        q, k = (torch.empty(1, h, n, dim, dtype=torch.bfloat16, device="meta") for h, n in ((2, queries), (1, keys)))
        out, lse = launch.forward(q, k, k, **place, q_start=keys - queries)
        launch_backward.backward(q, k, k, out, lse, q, None, **place, q_start=keys - queries)
    counts.append({kernel: len(keys) for kernel, keys in found.items()})
files = importlib.import_module(f"{name}.launch.configs").KERNEL_FILES
modules = [importlib.import_module(f"{name}.kernels.{file}") for file in files]
hashes = {n: f.cache_key for module in modules for n, f in vars(module).items() if n.startswith("attn_")}
print(json.dumps({"counts": counts, "hashes": hashes}))
"""


def launched(of: Held, *lengths: list[tuple[int, int]]) -> tuple[list[dict[str, int]], dict[str, str]]:
    """How many binaries each kernel would have after these launches, list by list, and the hashes of their sources."""
    folder = Path(str(of.package.__file__)).parent
    arguments = [str(folder.parent), folder.name, str(of.pattern.head_dim), json.dumps(lengths)]
    done = subprocess.run([sys.executable, "-c", KEYS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said["counts"], said["hashes"]


LONG = [(128, 128), (129, 4097), (1000, 1000), (4096, 4096), (131, 16384)]


@pytest.mark.parametrize("plan", ["closed", "table"])
def test_one_compile_serves_every_length(plan: str) -> None:
    """Lengths that divide by 16 and that do not, 1, and a million tokens where no table has to be made for them."""
    of = held(HEAD.replace("head_dim: 16", "head_dim: 64") + "shards: [{heads: all, local: 2, stride: 4}]", plan)
    more = [(1 << 20, 1 << 20), (1 << 20 | 1, 1 << 21)] if plan == "closed" else []
    few = [(n, 100 + n) for n in range(1, 128, 3)]
    (one, every, short), _ = launched(of, LONG[:1], LONG + more, few)
    assert set(one) == {f"attn_{kernel}_held" for kernel in ("fwd", "bwd_prepare", "bwd_dq", "bwd_dkdv", "bwd_sum")}
    assert every == one
    # Queries fewer than a tile take smaller tiles, one binary for each power of two below it.
    assert max(short["attn_fwd_held"], short["attn_bwd_dq_held"]) <= 8
    assert short["attn_bwd_dkdv_held"] == one["attn_bwd_dkdv_held"]


def test_constants_are_part_of_what_a_binary_is_looked_up_by() -> None:
    """Two packages whose kernels differ in one constant, and in nothing else, must not share binaries."""
    texts = [HEAD.replace("head_dim: 16", f"head_dim: {dim}") + "shards: [{heads: all, local: 2}]" for dim in (40, 48)]
    (_, first), (_, second) = (launched(held(text)) for text in texts)
    assert set(first) == set(second)
    assert first
    alike = {name for name in first if first[name] == second[name]}
    assert alike == {"attn_bwd_sinks_held"}  # it sums a number of each row, and reads no constant
    assert len(set(first.values()) & set(second.values())) == 1


@pytest.mark.interpret
def test_offsets_beyond_31_bits() -> None:
    """Keys 2**25 numbers apart, as a million tokens of 32 heads would be, and heads 2**31 + 64: none of it is touched
    but what is read."""
    of = held("several")
    q, k, v = tensors(of.pattern, 20, 70, dtype=torch.float16)
    far = torch.empty((1 << 31) + (1 << 28), dtype=torch.float16)
    by_token = far.as_strided(k.shape, (0, 16, 1 << 25, 1)).copy_(k)
    check_forward(of, (q, by_token, v))
    by_head = far.as_strided(k.shape, (0, (1 << 31) + 64, 16, 1)).copy_(k)
    check_forward(of, (q, by_head, v))
    check_backward(of, (q, by_head, v))


@pytest.mark.interpret
def test_decoding_at_every_place_in_a_tile() -> None:
    """DKernel's decoding without padding was right only where the place in the tile was below 16."""
    of = held("tokens")
    for keys in (64 + 12, 64 + 16, 64 + 28, 64 + 60):
        check_forward(of, tensors(of.pattern, 1, keys))
