"""What a page shows of each part of a suite, and what a reader must know of it."""

from __future__ import annotations

# What a page shows of each part: the cells' own columns are many more, and stand in the JSON.
PAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {
        "startup": ("what", "runs", "wall_s", "wall_min_s", "wall_max_s", "cpu_s"),
        "imports": (
            "what", "modules", "all_ms", "typer_ms", "rich_ms", "yaml_ms", "pydantic_ms", "numpy_ms", "torch_ms",
            "triton_ms",
        ),
        "lowering": (
            "what", "heads", "block", "tokens", "runs", "seconds", "seconds_min", "seconds_max", "peak_bytes", "bytes",
        ),
        "growth": ("what", "quantity", "tokens", "points", "exponent", "r2", "off_by_at_most", "at_the_end"),
        "proofs": ("what", "heads", "period", "holds", "runs", "wall_s", "wall_min_s", "wall_max_s"),
        "gallery": ("what", "property", "holds", "runs", "wall_s", "wall_min_s", "wall_max_s"),
        "attention": (
            "direction", "dtype", "tokens", "density", "path", "speedup", "share_of_ideal", "over_flex", "error",
        ),
        "attention: seconds": (
            "direction", "dtype", "tokens", "density",
            *(f"{who}_{field}" for who in ("patterncc", "dense", "dense_fp32", "flex")
              for field in ("wall_s", "wall_min_s", "wall_max_s", "runs")),
        ),
        "attention: peak memory": (
            "direction", "dtype", "tokens", "density", "patterncc_peak_bytes", "dense_peak_bytes",
            "dense_fp32_peak_bytes", "flex_peak_bytes", "flex_note",
        ),
        "decoding": (
            "tokens", "steps", "compact_s_per_step", "compact_s_per_step_min", "compact_s_per_step_max",
            "full_s_per_step", "full_s_per_step_min", "full_s_per_step_max", "speedup", "compact_bytes", "full_bytes",
            "bytes_kept", "error",
        ),
        "loops": ("what", "arch", "tile", "instructions_per_key", "to_dense", "edge_per_key", "registers", "spills"),
    },
    "gpu": {
        "ceilings": ("what", "backend", "head_dim", "direction", "tb_per_s", "tflops"),
        "attention": (
            "case", "batch", "tokens", "direction", "density", "ms", "ms_min", "ms_max", "host_ms", "tflops",
            "share_of_dense", "over_flash", "tuned", "sm_mhz", "error",
        ),
        "families": (
            "case", "batch", "tokens", "direction", "triton_ms", "gluon_ms", "triton_tflops", "gluon_tflops",
            "gluon_over_triton", "is_hopper", "unasked", "is_large", "sm_mhz", "error",
        ),
        "variants": (
            "case", "base", "batch", "tokens", "direction", "now_ms", "changed_ms", "changed_over_now", "now_spread",
            "changed_spread", "sm_mhz", "error",
        ),
        "serving": (
            "what", "case", "requests", "tokens", "direction", "ms", "host_ms", "graph_ms", "tb_per_s", "share_of_copy",
            "over_floor_us", "tflops", "share_of_dense", "splits", "one_graph_ms", "two_graph_ms",
            "two_over_one", "saved", "shared_graph_ms", "apart_graph_ms", "apart_over_shared", "error",
        ),
        "host": ("what", "case", "host_us", "least_us"),
        "peers": ("peer", "case", "batch", "tokens", "direction", "ms", "peer_ms", "over_peer", "peer_error"),
        "first_call": (
            "what", "caches", "import_s", "forward_s", "backward_s", "decode_s", "forward_again_s",
            "compiled_after_all",
        ),
        "compiling": ("cell", "seconds"),
    },
}  # fmt: skip


ABOUT = {  # what a reader must know of a part to read its table
    "startup": "Seconds of whole processes: the median, the least and the most.",
    "imports": "Milliseconds with Python's import profiler, which slows imports down; each package with what it "
    "imports itself. Empty: not imported.",
    "lowering": "From a checked pattern to what a kernel walks; each way a process of its own. Peak memory is the "
    "first run's, beyond what was held before it; bytes are those of the result. From a bitmap of blocks: making it "
    "is included. The median of five runs, of less where they take long.",
    "growth": "At 32 heads, block 64: each quantity as a power of the number of tokens, by least squares over all "
    "lengths. r2 is empty where nothing varies; off by at most: how many times the law misses a measurement. "
    "At the end: the exponent between the two greatest lengths.",
    "proofs": "Coverage by a layer, for every length. Period: the least common multiple of all strides, in blocks.",
    "gallery": "All that the gallery's patterns promise.",
    "attention": "8 heads of 64, block 64, causal. Speedup is over dense SDPA, of medians; the ideal is 1 / density. "
    "A share above 1: a kept pair takes less time than a pair of dense attention. Results of all are checked before, "
    "by the pattern's definition in fp64. Backward is forward and backward. In bf16 backward, dense is the faster of "
    "torch's own, which is slow on CPUs without bf16 instructions, and of SDPA in fp32 with casts before and after "
    "(dense fp32); torch's own is measured up to 4k tokens. "
    "flex_attention has no backward on CPUs. Path: compiled kernels, or torch.",
    "attention: seconds": "Medians, least and most, in alternation. What takes more than 5 s runs twice, its first run "
    "counted; more than 7.5 s, once.",
    "attention: peak memory": "Resident bytes of one call, beyond what was held before it.",
    "loops": "Instructions of a warp for a key of the far loop, whose tiles are kept whole, against a dense pattern's "
    "from the same template; and of the edge loop, which masks: 3 of 24 tiles of a row at 16k tokens, blocks of 64.",
    "decoding": "fp32, 32 heads, 8 KV heads of 128; SDPA takes the heads of a KV head as its queries, its fastest way. "
    "Seconds of a step: the median turn of 16, the least and the most.",
}
