"""One run of the real vLLM engine on a CPU under a pattern: `python case.py CASE.json RESULT.json`, in its own process.

The model is a tiny Llama with random weights, saved as transformers saves one. What the engine generates is held
against transformers' own eager attention under the dense mask of each head, from the definition in patterncc.reference.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = 97
MODEL = {"layers": 3, "heads": 6, "kv_heads": 2, "head_dim": 32}


def pattern_text(shards: str, **more: Any) -> str:
    """A pattern for the tiny model."""
    lines = {"pattern": 1, "name": "tiny", **MODEL, "block": 16, "shards": shards, "promises": "{}", **more}
    return "\n".join(f"{key}: {value}" for key, value in lines.items()) + "\n"


def model_in(folder: Path) -> Any:
    """A Llama with random weights, saved in the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=192, intermediate_size=64, num_hidden_layers=MODEL["layers"],
        num_attention_heads=MODEL["heads"], num_key_value_heads=MODEL["kv_heads"], head_dim=MODEL["head_dim"],
        max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.2,  # large, so that the choice of a token is seldom a close one
    )  # fmt: skip
    model = LlamaForCausalLM(config).float().eval()
    model.save_pretrained(folder)
    return model


def engine(folder: Path, pattern: str, options: dict[str, Any]) -> Any:
    from vllm import LLM

    settings: dict[str, Any] = {
        "skip_tokenizer_init": True, "dtype": "float32", "enforce_eager": True, "max_model_len": 1024, "block_size": 16,
        "max_num_seqs": 8, "enable_chunked_prefill": True, "disable_log_stats": True,
        "attention_config": {"backend": "CUSTOM"}, "additional_config": {"patterncc": pattern},
        "compilation_config": {"custom_ops": ["none"]},  # the wheel's own operators are for GPUs
    }  # fmt: skip
    return LLM(model=str(folder), **settings | options)


class Watch:
    """The most pages in use, and the most requests running, over all steps of an engine."""

    def __init__(self, llm: Any) -> None:
        self.core = llm.llm_engine.engine_core.engine_core
        self.scheduler = self.core.scheduler
        self.pool = self.scheduler.kv_cache_manager.block_pool
        self.free_at_first = self.pool.get_num_free_blocks()
        self.pages = self.requests = self.mixed = self.steps = 0
        schedule = self.scheduler.schedule

        def watched(*arguments: Any, **options: Any) -> Any:
            result = schedule(*arguments, **options)
            self.steps += 1
            self.pages = max(self.pages, self.free_at_first - self.pool.get_num_free_blocks())
            self.requests = max(self.requests, len(self.scheduler.running))
            counts = list(result.num_scheduled_tokens.values())
            self.mixed += min(counts, default=0) == 1 < max(counts, default=0)  # prefill and decode in one batch
            return result

        self.scheduler.schedule = watched

    def seen(self) -> dict[str, Any]:
        """What was counted, the layers of each group that shares block tables, and the pages that are still held."""
        groups = self.scheduler.kv_cache_config.kv_cache_groups
        return {
            "requests": self.requests,
            "mixed": self.mixed,
            "steps": self.steps,
            "ahead": groups[0].kv_cache_spec.ahead,
            "groups": [len(group.layer_names) for group in groups],
            "left": self.free_at_first - self.pool.get_num_free_blocks(),
        }


def free_early(tokens: int) -> None:
    """A mistake on purpose: pages count as dead so many tokens before they are."""
    from patterncc.integrations.vllm.pages import Pages

    right = Pages.dead_from

    def wrong(self: Pages, pages: int) -> Any:
        if pages > len(self._from):
            right(self, pages)
            full = (np.arange(len(self._from)) + 1) * self.page_size
            self._from = np.where(self._from < 1 << 60, np.maximum(self._from - tokens, full), self._from)
            self._order = np.argsort(self._from, kind="stable")
            self._sorted = self._from[self._order]
        return self._from[:pages]

    Pages.dead_from = wrong  # type: ignore[method-assign]


def generate(llm: Any, prompts: list[list[int]], count: int) -> list[Any]:
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False, logprobs=5)
    return llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)


def compare(model: Any, pattern: str, prompts: list[list[int]], outputs: list[Any], heads: int = 0) -> dict[str, Any]:
    """Of the tokens that the engine chose, how many the witness chooses too, and how far log-probabilities lie apart;
    `heads` shifts the witness's heads, as a wrong head offset would."""
    import torch
    from transformers import AttentionInterface
    from transformers.models.llama.modeling_llama import eager_attention_forward

    from patterncc.language import loads
    from patterncc.reference import keeps

    known = loads(pattern)
    masks: dict[tuple[int, int], torch.Tensor] = {}

    def mask(layer: int, length: int) -> torch.Tensor:
        if (layer, length) not in masks:
            t = np.arange(length)
            kept = np.stack([keeps(known, layer, (head + heads) % known.heads, t, t) for head in range(known.heads)])
            masks[layer, length] = torch.zeros(kept.shape).masked_fill(~torch.from_numpy(kept), float("-inf"))[None]
        return masks[layer, length]

    def attend(module: Any, q: Any, k: Any, v: Any, _: Any, scaling: float, dropout: float = 0.0, **__: Any) -> Any:
        return eager_attention_forward(module, q, k, v, mask(module.layer_idx, k.shape[2]), scaling, dropout)

    AttentionInterface.register("witness", attend)
    model.set_attn_implementation("witness")
    same = total = 0
    apart = 0.0
    for prompt, output in zip(prompts, outputs, strict=True):
        chosen = output.outputs[0]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + list(chosen.token_ids)]), use_cache=False).logits[0]
        for n, (token, near) in enumerate(zip(chosen.token_ids, chosen.logprobs, strict=True)):
            row = logits[len(prompt) - 1 + n].log_softmax(-1)
            same, total = same + (int(row.argmax()) == token), total + 1
            apart = max(apart, *(abs(float(row[key]) - value.logprob) for key, value in near.items()))
    return {"same": same, "of": total, "apart": apart}


def run(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Everything that a case asks for, as plain data."""
    import torch

    model = model_in(folder / "model")
    if case.get("attached"):
        from patterncc.integrations.transformers import attach
        from patterncc.pipeline import load

        attach(model, load(case["pattern"])).save_pretrained(folder / "model")
    draw = torch.Generator().manual_seed(3)
    rounds = [[torch.randint(3, VOCABULARY, (n,), generator=draw).tolist() for n in case["prompts"]]]
    rounds += [[[*prompt[: case["shared"]], 5, 6, 7] for prompt in rounds[0]]] if case.get("shared") else []
    start = time.time()
    if "early" in case:
        free_early(case["early"])
    llm = engine(folder / "model", case["pattern"], case.get("options", {}))
    watch = Watch(llm) if case.get("watched", True) else None
    prompts, outputs, peaks = [], [], []
    for some in rounds:
        outputs += generate(llm, some, case.get("tokens", 12))
        prompts += some
        peaks.append(watch.pages if watch else 0)
    cached = sum(output.num_cached_tokens or 0 for output in outputs[len(rounds[0]) :])
    result: dict[str, Any] = {"cached": cached, "seconds": round(time.time() - start, 1)}
    if watch:
        result |= watch.seen() | {"peak": peaks[0]}
    result["pattern"] = compare(model, case["pattern"], prompts, outputs)
    if case.get("controls"):
        dense = pattern_text("[{heads: all, dense: true}]")
        result["dense"] = compare(model, dense, prompts, outputs)
        result["shifted"] = compare(model, case["pattern"], prompts, outputs, heads=1)
    return result


def main(case: str, result: str) -> None:
    usual = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ.update(usual | os.environ)
    given = json.loads(Path(case).read_text())
    Path(result).write_text(json.dumps(run(given, Path(result).parent)))


if __name__ == "__main__":
    main(*sys.argv[1:])
