"""What `show` prints: a pattern, or two side by side."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from patterncc.analysis.costs.price import LENGTH, amount, price
from patterncc.errors import counted
from patterncc.ir.classes import Classes
from patterncc.pictures.drawn import GAP, Drawn, flow
from patterncc.pictures.overview import overview as kinds_of
from patterncc.pictures.pair import same_tokens
from patterncc.pictures.terminal import drawn_layouts, drawn_unions
from patterncc.pictures.terminal_heads import grid, key
from patterncc.pictures.text import telling_rows
from patterncc.pictures.view import check_choice, check_rows, facts, telling_layer


def show_terminal(
    classes: Classes,
    beside: Classes | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    union: bool = False,
    rows: int | None = None,
    console: Console,
    length: int = LENGTH,
    overview: bool = False,
) -> None:
    """Print the kinds of a pattern's heads and its layouts, one layer's, one head's layout, or how many heads keep each
    block (`union`); `overview`: the kinds alone. Kinds keep what is said of them at `length` tokens.

    Of two patterns the same, side by side over the same tokens; where nothing is chosen, the kinds and the unions.
    """
    check_choice(classes, layer, head)
    colour = _has_colour(console)
    if beside is not None:
        check_choice(beside, layer, head)
        _pair((classes, beside), layer, head, union, rows and rows * classes.block, console, colour, length, overview)
        return
    console.print(Text(classes.name, "bold").append(f"  {facts(classes)}", "not bold dim"), soft_wrap=True)
    if overview or (layer is None and head is None and not union):
        found = kinds_of(classes, length=length)
        if overview or len(found.kinds) > 1:
            console.print()
            _print([*grid(classes, found, 0, console.width, colour).lines, Text()], console)
            _print(key(found, console.width, colour), console)
            if overview:
                return
            console.print()
    across = 1 if head is not None else 3
    shown = check_rows(
        rows or _fitting(telling_rows(classes.layouts, classes.block, least=24), console.width // across)
    )
    console.print(
        f"first {counted(shown, 'row')} (down) and column{'s' * (shown != 1)} (across): {shown * classes.block} tokens",
        style="dim",
        highlight=False,
    )
    console.print()
    if union:
        drawn, words = drawn_unions(classes, layer, shown, console.width, colour)
    else:
        drawn, words = drawn_layouts(classes, layer, head, shown, console.width, colour)
    _print(list(flow(drawn, console.width)), console)
    console.print(words, soft_wrap=True)


def _pair(
    patterns: tuple[Classes, Classes],
    layer: int | None,
    head: int | None,
    union: bool,
    tokens: int | None,
    console: Console,
    colour: bool,
    length: int,
    overview: bool,
) -> None:
    """Print two patterns side by side: without a layer, a head or `union` their kinds, and then their unions."""
    width = (console.width - GAP) // 2
    _print(list(flow([_name(classes, length, width) for classes in patterns], console.width)), console)
    if overview or (layer is None and head is None and not union):
        found = kinds_of(*patterns, length=length)
        drawn = [_wide(grid(classes, found, n, width, colour), width) for n, classes in enumerate(patterns)]
        _print(list(flow(drawn, console.width)), console)
        _print(key(found, console.width, colour), console)
        if overview:
            return
        console.print()
        union = True
    columns, keys = [], []
    for classes, shown in zip(patterns, same_tokens(patterns, tokens), strict=True):
        chosen = telling_layer(classes).layers[0] if union and layer is None else layer
        draw = drawn_unions(classes, chosen, shown, width, colour) if union and head is None else None
        drawn, words = draw or drawn_layouts(classes, layer, head, shown, width, colour)
        extent = Text(f"first {shown * classes.block} tokens: {counted(shown, 'row')}", "dim")
        columns.append(_stacked(extent, drawn, width))
        keys.append(words)
    _print(list(flow(columns, console.width)), console)
    for words in keys[: 1 if keys[0].plain == keys[1].plain else 2]:
        console.print(words, soft_wrap=True)


def _name(classes: Classes, length: int, width: int) -> Drawn:
    """A pattern's name, its facts and its price, within `width`."""
    cost = price(classes, length)
    lines = [Text(classes.name, "bold")]
    lines += [Text(text, "dim") for text in facts(classes).replace(", blocks", "\nblocks").split("\n")]
    lines.append(Text(f"{amount(cost.kv_bytes, 'B', 1024)} of KV cache, {cost.density:.1%} kept", "dim"))
    return _wide(Drawn(lines, width), width)


def _wide(drawn: Drawn, width: int) -> Drawn:
    for line in drawn.lines:
        line.truncate(width, overflow="ellipsis")
    return Drawn(drawn.lines, width)


def _stacked(title: Text, drawn: list[Drawn], width: int) -> Drawn:
    return _wide(Drawn([title, *(line for panel in drawn for line in [*panel.lines, Text()])][:-1], width), width)


def _print(lines: list[Text], console: Console) -> None:
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop", soft_wrap=False)


def _has_colour(console: Console) -> bool:
    wanted = console.is_terminal and not console.no_color and console.color_system is not None
    return wanted and (console.encoding or "").lower().startswith("utf")


def _fitting(rows: int, width: int) -> int:
    """Rows to show when nobody asked for a number: cut to what fits in `width`, if most of them do."""
    room = width - GAP + 1
    return room if room < rows <= 2 * room else rows
