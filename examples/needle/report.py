"""The page and the picture of what was measured."""

from __future__ import annotations

from pathlib import Path

COLOURS = {"dense": "#444444", "covered": "#0072b2", "broken": "#d55e00", "local": "#cc79a7"}  # told apart by all
MARKS = {"dense": "o", "covered": "s", "broken": "^", "local": "v"}


def compared(result: dict) -> str:
    """A Markdown page with a row a pattern."""
    setting, runs = result["setting"], result["runs"]
    dense = runs["dense"]
    columns = "pattern | seen by some head | recall | loss on text | loss on answers | KV bytes | s a step | of dense"
    lines = [f"| {columns} |", "| --- " * (columns.count("|") + 1) + "|"]
    for name, run in runs.items():
        shown = sum(result["seen"][name]) / len(result["seen"][name])
        lines.append(
            f"| {name} | {shown:.1%} | {run['recall']:.1%} | {run['text']:.3f} | {run['answers']:.3f} |"
            f" {run['kv_bytes']:,} | {run['step_seconds']:.3f} | {run['step_seconds'] / dense['step_seconds']:.2f} |"
        )
    head = (
        f"{setting['layers']} layers, {setting['heads']} heads of {setting['head_dim']}, {setting['length']:,} tokens, "
        f"window {setting['local'] * setting['block']}, {setting['pairs']} needles, {setting['steps']:,} steps of "
        f"{setting['batch']} documents. {result['machine']}; commit {result['commit']}."
    )
    return "\n".join([head, "", *lines, ""])


def converted(result: dict) -> str:
    """A Markdown page with a row for each moment of the conversion (512 documents; on the way 64)."""
    runs, switched = result["runs"], result["switched"]
    rows = [("dense, trained", runs["dense"]["recall"]), ("switched to covered", switched["recall"])]
    rows += [(f"… trained on for {step + 1} steps", recall) for step, _, _, recall in runs["covered"]["curve"][:-1:10]]
    rows += [(f"… for {result['more']:,} steps", runs["covered"]["recall"])]
    table = "\n".join(f"| {what} | {recall:.1%} |" for what, recall in rows)
    return f"{result['machine']}; commit {result['commit']}.\n\n| model | recall |\n| --- | --- |\n{table}\n"


def draw(result: dict, path: Path) -> None:
    """Losses along the training and recall by depth, as a PNG; needs matplotlib (the extra `bench`)."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'patterncc[bench]')")
        return
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    text, answers, depth = figure.subplots(1, 3)
    converted = "switched" in result
    for name, run in result["runs"].items():
        steps, on_text, on_answers, _ = zip(*run["curve"], strict=True)
        first, style = 0, {"color": COLOURS[name], "marker": MARKS[name], "markersize": 5}
        label = name
        if converted and name == "covered":  # trained on from the last step of the dense model
            first, label = result["runs"]["dense"]["curve"][-1][0] + 1, "covered, trained on"
        text.plot([first + step for step in steps], on_text, label=label, markevery=10, **style)
        answers.plot([first + step for step in steps], on_answers, color=COLOURS[name])
        places = [(part + 0.5) / len(run["by_depth"]) for part in range(len(run["by_depth"]))]
        depth.plot(places, run["by_depth"], label=label, **style)
        if seen := result.get("seen", {}).get(name):
            depth.plot(places, seen, color=COLOURS[name], linestyle=":", linewidth=1)
    if converted:
        depth.plot(places, result["switched"]["by_depth"], color=COLOURS["local"], marker="x", label="switched")
    text.set(title="loss on text", xlabel="step")
    answers.set(title="loss on answers", xlabel="step")
    dotted = "" if converted else " (dotted: seen by some head)"
    depth.set(title=f"recall by depth{dotted}", xlabel="place of the needle", ylim=(-0.03, 1.05))
    (depth if converted else text).legend(frameon=False)
    figure.suptitle(f"{result['machine']}; commit {result['commit']}", fontsize=8, color="#666666")
    figure.savefig(path, dpi=100, metadata={"Software": None})
