"""From a YAML file to checked attention: draw a pattern, prove what it promises, compile it, import it, run it.

python examples/demo.py                 the pattern `demo`, small enough to see
python examples/demo.py phi3_small      another shipped pattern, or a path to your own
"""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

LENGTH = 1000  # tokens; not a multiple of the block, as in life
TOLERANCE = 2e-6  # float32 against float64, by norm: sums of up to 1000 products of order one


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    for command in (["show", name], ["verify", "promises", name], ["compile", name]):
        print(f"\n$ patterncc {' '.join(command)}", flush=True)
        if code := subprocess.call([sys.executable, "-m", "patterncc", *command]):
            return code

    import torch

    import patterncc
    from patterncc import reference, spec
    from patterncc.runtime.gallery import find

    print(f"\n>>> module = patterncc.load({name!r})")
    module = patterncc.load(name)
    pattern = spec.load(find(name))
    heads, kv_heads, head_dim = pattern.heads, pattern.kv_heads, pattern.head_dim

    print(">>> out = module.attention(q, k, v)  # float32, on the CPU")
    torch.manual_seed(0)
    shapes = ([1, heads, LENGTH, head_dim], [1, kv_heads, LENGTH, head_dim], [1, kv_heads, LENGTH, head_dim])
    q, k, v = (torch.randn(shape, requires_grad=True) for shape in shapes)
    module.attention(q, k, v)
    start = perf_counter()
    out = module.attention(q, k, v)
    taken = perf_counter() - start
    print(f"q {shapes[0]}, k and v {shapes[1]}: {taken * 1e3:.1f} ms")

    print("\nchecked against dense attention in float64, under the mask that the YAML file means:")
    doubles = [tensor.detach().double().requires_grad_() for tensor in (q, k, v)]
    expected, _ = reference.attention(pattern, *doubles)
    weight = torch.randn_like(out)
    out.backward(weight)
    expected.backward(weight.double())
    good = True
    results = {"out": (out, expected)} | {
        f"d{letter}": (mine.grad, true.grad) for letter, mine, true in zip("qkv", (q, k, v), doubles, strict=True)
    }
    for what, (mine, true) in results.items():
        error = ((mine - true).norm() / true.norm()).item()
        good &= error < TOLERANCE
        print(f"  {what:3}  relative error {error:.1e}  {'ok' if error < TOLERANCE else 'WRONG'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
