"""From a YAML file to checked attention: look at a pattern, prove what it promises, compile it, import it, run it.

python examples/demo.py                 `demo`, small enough to see, and then `phi3_small`, as large as life
python examples/demo.py bigbird         another shipped pattern, or a path to your own
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KEYS = 2000  # tokens; not a multiple of the block, as in life
MOST_PAIRS = 2**24  # of queries and keys over all heads, for the dense reference to fit in memory
TOLERANCE = 2e-6  # float32 against float64, by norm: sums of up to 2000 products of order one


def main(patterns: list[str]) -> int:
    """0 when every command succeeded and every result was right."""
    for pattern in patterns:
        look = ["show", "demo", "--length", "256"] if pattern == "demo" else ["forecast", pattern, "--length", "131072"]
        for command in (look, ["verify", "promises", pattern], ["compile", pattern]):
            print(f"\n$ patterncc {' '.join(command)}", flush=True)
            if code := subprocess.call([sys.executable, "-m", "patterncc", *command]):
                return code
        if not check(pattern):
            return 1
    return 0


def check(name: str) -> bool:
    """Run the generated package, forward and backward, and compare with dense attention."""
    import torch

    import patterncc
    from patterncc import language, reference
    from patterncc.runtime.gallery import find

    stem = Path(name).stem
    print(f"\n>>> {stem} = patterncc.load({name!r})")
    module = patterncc.load(name)
    pattern = language.load(find(name))

    queries = min(KEYS, MOST_PAIRS // (pattern.heads * KEYS))  # the last ones: positions end where the keys end
    torch.manual_seed(0)
    shapes = [(1, pattern.heads, queries, pattern.head_dim), *[(1, pattern.kv_heads, KEYS, pattern.head_dim)] * 2]
    q, k, v = (torch.randn(shape, requires_grad=True) for shape in shapes)
    print(f">>> out = {stem}.attention(q, k, v)   # q {list(q.shape)}, k and v {list(k.shape)}, float32, CPU")
    out = module.attention(q, k, v)
    print(">>> out.backward(weight)")
    weight = torch.randn_like(out)
    out.backward(weight)

    print("against dense attention in float64, under the mask that the file means:")
    exact = [tensor.detach().double().requires_grad_() for tensor in (q, k, v)]
    expected, _ = reference.attention(pattern, *exact)
    expected.backward(weight.double())
    gradients = ((mine.grad, true.grad) for mine, true in zip((q, k, v), exact, strict=True))
    right = True
    for what, (mine, true) in zip(("out", "dq", "dk", "dv"), [(out, expected), *gradients], strict=True):
        error = ((mine - true).norm() / true.norm()).item()
        right &= error < TOLERANCE
        print(f"  {what:3}  relative error {error:.0e}  {'ok' if error < TOLERANCE else 'WRONG'}")
    return right


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["demo", "phi3_small"]))
