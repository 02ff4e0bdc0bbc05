"""Switch a trained dense model to a sparse pattern, train on for a few steps, and see it recover."""

from __future__ import annotations

import sys
from types import ModuleType

from rich.progress import Progress
from settings import Setting
from train import evaluate, fresh, train


def convert(setting: Setting, compiled: dict[str, ModuleType], device: str, more: int) -> dict:
    """Recall of the dense model, of its weights under the covered pattern, and while these are trained `more` steps."""
    with Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("dense", total=setting.steps)
        model = fresh(setting, compiled["dense"], device)
        dense = train(setting, model, "dense", device, setting.steps, lambda: progress.advance(task))
        model.use(compiled["covered"])
        switched = evaluate(setting, model, device, batches=8)
        task = progress.add_task("covered", total=more)
        after = train(setting, model, "covered", device, more, lambda: progress.advance(task), growing=False)
    return {
        "more": more,
        "runs": {"dense": dense.plain(), "covered": after.plain()},
        "switched": {"text": switched[0], "answers": switched[1], "recall": switched[2], "by_depth": switched[3]},
    }
