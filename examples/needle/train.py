"""Training and measuring one model: loss on text and on answers, recall by depth, KV bytes, seconds a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from data import FIRST_KEY, FIRST_VALUE, VALUES, VOCABULARY, Documents, Language, documents
from model import Llama
from settings import Setting
from torch import Tensor

from patterns import packages

DEPTHS = 16  # equal parts of the context in which recall is counted
ANSWERS = 3.0  # weight of the loss on answers, of which there are few, beside that on text
POINTS = 60  # measurements along a training


@dataclass
class Run:
    """What one training showed; `curve` has (step, loss on text, loss on answers, recall)."""

    name: str
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)
    text: float = 0.0  # after the training, on 512 whole documents never trained on: loss on text, on answers, recall
    answers: float = 0.0
    recall: float = 0.0
    by_depth: list[float] = field(default_factory=list)
    seconds: float = 0.0  # of the whole training
    kv_bytes: int = 0
    step_seconds: float = 0.0  # measured in turns with the others

    def plain(self) -> dict:
        return asdict(self)


def losses(model: Llama, batch: Documents, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Mean cross-entropy on the words of the text, the same on the answers, and whether each answer is right."""
    tokens = batch.tokens.to(device)
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        logits = model(tokens)
    words = tokens[:, 1 : batch.body]
    on_text = F.cross_entropy(logits[:, : batch.body - 1].float().flatten(0, 1), words.flatten(), reduction="none")
    on_text = on_text[(words < FIRST_KEY).flatten()].mean()  # needles come without warning: nothing to learn
    asked, answers = logits[:, batch.body :: 2].float(), tokens[:, batch.body + 1 :: 2]
    on_answers = F.cross_entropy(asked.flatten(0, 1), answers.flatten())
    return on_text, on_answers, asked[..., FIRST_VALUE : FIRST_VALUE + VALUES].argmax(-1) + FIRST_VALUE == answers


def train(
    setting: Setting,
    model: Llama,
    name: str,
    device: str,
    steps: int,
    advance: Callable[[], None],
    growing: bool = True,
) -> Run:
    """Train `model` for `steps`; documents grow from `start` to `length` tokens over the first 60 % if `growing`."""
    language, generator = Language(), torch.Generator().manual_seed(1)
    dtype = getattr(torch, setting.dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.rate, weight_decay=0.0, betas=(0.9, 0.98))
    run, began, every = Run(name), time.perf_counter(), max(1, steps // POINTS)
    for step in range(steps):
        grown = min(1.0, step / (0.6 * steps)) if growing else 1.0
        length = int(setting.start + (setting.length - setting.start) * grown) // setting.block * setting.block
        rate = min(1.0, (step + 1) / 50, max(0.05, (steps - step) / (0.3 * steps)))
        for group in optimizer.param_groups:
            group["lr"] = setting.rate * rate
        batch = documents(language, setting.batch, length, setting.pairs, generator)
        on_text, on_answers, _ = losses(model, batch, device, dtype)
        optimizer.zero_grad()
        (on_text + ANSWERS * on_answers).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % every == 0 or step == steps - 1:
            recall = evaluate(setting, model, device, batches=1)[2]
            run.curve.append((step, on_text.item(), on_answers.item(), recall))
        advance()
    run.seconds = time.perf_counter() - began
    run.text, run.answers, run.recall, run.by_depth = evaluate(setting, model, device, batches=8)
    return run


@torch.no_grad()
def evaluate(setting: Setting, model: Llama, device: str, batches: int) -> tuple[float, float, float, list[float]]:
    """Losses on text and answers, recall, and recall by depth, over whole documents never trained on."""
    language, generator = Language(), torch.Generator().manual_seed(2)
    right, place, texts, answers = [], [], [], []
    for _ in range(batches):
        batch = documents(language, 64, setting.length, setting.pairs, generator)
        on_text, on_answers, hits = losses(model, batch, device, getattr(torch, setting.dtype))
        texts.append(on_text.item())
        answers.append(on_answers.item())
        right.append(hits.float().cpu().flatten())
        place.append((batch.places * DEPTHS // batch.body).flatten())
    hits, depth = torch.cat(right), torch.cat(place)
    by_depth = [hits[depth == part].mean().item() for part in range(DEPTHS)]
    return sum(texts) / batches, sum(answers) / batches, hits.mean().item(), by_depth


def kv_bytes(package: ModuleType, setting: Setting) -> int:
    """Live K and V bytes of one sequence of `length` tokens in all layers, counted by the package's own cache."""
    total = 0
    for layer in range(setting.layers):
        cache = package.KVCache(1, layer=layer, dtype=torch.float32, device="cpu", max_length=setting.length)
        tokens = torch.zeros(1, setting.heads, setting.block, setting.head_dim)
        for _ in range(setting.length // setting.block):
            cache.step(tokens, tokens, tokens)
        total += cache.bytes
    return total


def time_steps(setting: Setting, models: dict[str, Llama], device: str, rounds: int = 5) -> dict[str, float]:
    """Seconds of a training step on whole documents, the least of `rounds`, the models taking turns."""
    language, generator = Language(), torch.Generator().manual_seed(3)
    batch = documents(language, setting.batch, setting.length, setting.pairs, generator)
    least = dict.fromkeys(models, float("inf"))
    for _ in range(rounds):
        for name, model in models.items():
            wait(device)
            began = time.perf_counter()
            on_text, on_answers, _ = losses(model, batch, device, getattr(torch, setting.dtype))
            (on_text + on_answers).backward()
            wait(device)
            least[name] = min(least[name], time.perf_counter() - began)
            model.zero_grad()
    return least


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def fresh(setting: Setting, package: ModuleType, device: str) -> Llama:
    """A new model, with the same first weights for every pattern."""
    torch.manual_seed(0)
    return Llama(setting, VOCABULARY, package).to(device)


def train_alone(setting: Setting, name: str, folder: str, device: str) -> Run:
    """One training in a process of its own, with the packages in `folder`."""
    package = packages(setting, Path(folder))[name]
    return train(setting, fresh(setting, package, device), name, device, setting.steps, lambda: None)
