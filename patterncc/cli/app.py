"""Every command: its options and its `--help`. The work is done by the module of the command's name.

It is one list, longer than other files, since typer reads options where the command stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from patterncc.version import __version__

app = typer.Typer(
    name="patterncc",
    help="A compiler for sparse attention patterns: one YAML file in, a proved and importable kernel package out.",
    epilog="PATTERN is a YAML file, or the name of a shipped pattern (`patterncc list`). Exit codes: 0 done and held, "
    "1 a property does not hold, 2 the input or the usage is wrong, 70 a fault of patterncc.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich would cost more than the whole start
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cache_app = typer.Typer(
    help="List, check or empty the cache of packages and tuned tile sizes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(cache_app, name="cache")


def command() -> Any:
    """The program that typer makes of all this."""
    return typer.main.get_command(app)


def _names(incomplete: str) -> list[str]:
    """Shipped patterns, for the shell's completion."""
    from patterncc.runtime.gallery import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


def _properties(incomplete: str) -> list[str]:
    from patterncc.cli.verify import PROPERTIES

    return [name for name in PROPERTIES if name.startswith(incomplete)]


def _one_of(*values: str) -> Any:
    """A completion for an option with a few values; in a list with commas the last entry is completed."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{value}" for value in values if value.startswith(last)]

    return complete


_DTYPES = _one_of("bf16", "fp16", "fp32")
_CACHE_DTYPES = _one_of("bf16", "fp16", "fp32", "fp8", "int8")
_ARCHES = _one_of("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942", "gfx950")


def _cached(incomplete: str) -> list[str]:
    """Names of cached packages, for the shell's completion."""
    from patterncc.runtime.cache import Cache

    return sorted({entry.name for entry in Cache.of_user().entries() if entry.name.startswith(incomplete)})


def _version(wanted: bool) -> None:
    if wanted:
        print(f"patterncc {__version__}")
        raise typer.Exit


Pattern = Annotated[
    str, typer.Argument(metavar="PATTERN", help="A YAML file or a shipped name.", autocompletion=_names)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Layer = Annotated[int | None, typer.Option("--layer", "-l", metavar="L", help="A layer, counted from 0.")]
Head = Annotated[int | None, typer.Option("--head", metavar="H", help="A query head, counted from 0.")]
Length = Annotated[str, typer.Option("--length", "-n", metavar="N", help="Tokens.")]


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def compile(
    patterns: Annotated[
        list[str], typer.Argument(metavar="PATTERN", help="YAML files or shipped names.", autocompletion=_names)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Put a copy in DIR/<name>, to ship or to vendor."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="fp32, fp16 or bf16: what --arch compiles for.", autocompletion=_DTYPES)
    ] = "bf16",
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="ARCH,...",
            help="Also compile for sm_80, sm_90, gfx942, ... and say what it takes.",
            autocompletion=_ARCHES,
        ),
    ] = None,
    binaries: Annotated[
        bool, typer.Option("--binaries", help="Put what --arch compiles into the package: first calls load it.")
    ] = False,
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="closed|table", help="The form of the index map.", autocompletion=_one_of("closed", "table")
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build it again, cached or not; replace an edited copy.")
    ] = False,
    json: Json = False,
) -> int:
    """Compile patterns to packages, and prove what they promise."""
    from patterncc.cli.compile import run

    return run(patterns, output, dtype, arch, binaries, plan, force, json)


@app.command()
def verify(
    property: Annotated[
        str,
        typer.Argument(
            metavar="PROPERTY",
            help="coverage, rows, kv, reach, causal, balance; promises: what the file promises; all: every proof; "
            "kernels: the compiled package against the definition.",
            autocompletion=_properties,
        ),
    ],
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATTERN", help="Default: every shipped pattern.", autocompletion=_names),
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the results as JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the results as Markdown.")] = None,
    length: Annotated[
        str, typer.Option("--length", "-n", metavar="N", help="Tokens at which mends are priced; proofs hold for all.")
    ] = "128k",
    json: Json = False,
) -> int:
    """Prove a property for every length, or run the kernels."""
    from patterncc.cli.verify import run

    return run(property, patterns or [], json, junit, markdown, length)


@app.command()
def tune(
    pattern: Pattern,
    dtype: Annotated[
        str, typer.Option(help="fp32, fp16 or bf16; fp16 and bf16 share a result.", autocompletion=_DTYPES)
    ] = "bf16",
    length: Annotated[str, typer.Option("--length", "-n", metavar="N", help="Tokens to measure at.")] = "16k",
    batch: Annotated[int, typer.Option(metavar="B", help="Sequences; eight times as many when decoding.")] = 1,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="DIRECTION,...",
            help="Of forward, decode, dq, dkdv; default: all.",
            autocompletion=_one_of("forward", "decode", "dq", "dkdv"),
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Measure tile sizes on this GPU; the package takes the best."""
    from patterncc.cli.tune import run

    return run(pattern, dtype, length, batch, only, json)


@app.command()
def table(
    pattern: Pattern,
    length: Length,
    layer: Layer = 0,
    head: Head = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.npz", help="Write arrays.")] = None,
    json: Json = False,
) -> int:
    """Print which columns every row of a head keeps."""
    from patterncc.cli.table import run

    return run(pattern, length, layer or 0, head or 0, json, output)


@app.command()
def show(
    patterns: Annotated[
        list[str],
        typer.Argument(
            metavar="PATTERN",
            help="A YAML file or a shipped name; two are drawn side by side.",
            autocompletion=_names,
        ),
    ],
    layer: Layer = None,
    head: Head = None,
    union: Annotated[bool, typer.Option("--union", help="How many heads keep each block.")] = False,
    overview: Annotated[
        bool, typer.Option("--overview", help="Only the kinds of heads: layers by heads, how much each keeps.")
    ] = False,
    length: Annotated[
        str | None, typer.Option("--length", "-n", metavar="N", help="Tokens to draw, and to count what is kept of.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a picture: .svg, .png or .html.")
    ] = None,
) -> int:
    """Draw a pattern, or two side by side."""
    from patterncc.cli.show import run

    return run(patterns, layer, head, union, overview, length, output)


@app.command()
def forecast(
    pattern: Pattern,
    length: Length,
    dtype: Annotated[str, typer.Option(help="Of the KV cache.", autocompletion=_CACHE_DTYPES)] = "bf16",
    devices: Annotated[int, typer.Option(metavar="N", help="Devices that the context is split over.")] = 8,
    batch: Annotated[int, typer.Option(metavar="B", help="Requests at once.")] = 1,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="config.json", help="Count its weights, too.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="Of the card: how many requests fit.")
    ] = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="One line a layer class, and one for the model.")] = False,
) -> int:
    """Say what a pattern costs at a length: work, memory, traffic."""
    from patterncc.cli.forecast import run

    return run(pattern, length, dtype, devices, batch, model, memory, json, csv)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A YAML file or a shipped name.", autocompletion=_names)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.", autocompletion=_names)],
    json: Json = False,
) -> int:
    """Compare two patterns by meaning: exit 0 if equal, else 1."""
    from patterncc.cli.diff import run

    return run(a, b, json)


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A transformers config.json, DeepSpeed's sparse_attention JSON, a file of head choices (.tsv, .json), "
            "a boolean mask (.npy, .npz, .pt), or module:mask_mod.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.yaml", help="Write it here, not to stdout.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The pattern's name. Default: the file's.")] = None,
    heads: Annotated[int | None, typer.Option(metavar="N", help="Heads, for sources that do not say them.")] = None,
    length: Annotated[
        str | None,
        typer.Option("--length", "-n", metavar="N", help="Tokens to sample, or to freeze random blocks for."),
    ] = None,
    level: Annotated[
        str, typer.Option(metavar="auto|token|block", help="What an entry of a mask stands for.")
    ] = "auto",
    block: Annotated[int | None, typer.Option(metavar="N", help="Tokens of a block, for a mask of blocks.")] = None,
    json: Json = False,
) -> int:
    """Read what another library says, and write it as a pattern file."""
    from patterncc.cli.importing import run

    return run(source, output, name, heads, length, level, block, json)


@app.command()
def suggest(
    length: Length,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="config.json", help="A transformers configuration.")
    ] = None,
    heads: Annotated[int | None, typer.Option(metavar="N", help="Query heads of a layer.")] = None,
    kv_heads: Annotated[int | None, typer.Option(metavar="N", help="KV heads. Default: as many.")] = None,
    head_dim: Annotated[int, typer.Option(metavar="N", help="Width of a head.")] = 128,
    v_head_dim: Annotated[int | None, typer.Option(metavar="N", help="Width of a value. Default: of a head.")] = None,
    layers: Annotated[int | None, typer.Option(metavar="N", help="Layers of the model.")] = None,
    kv_budget: Annotated[str | None, typer.Option(metavar="SIZE", help="For the KV caches of all requests.")] = None,
    batch: Annotated[int, typer.Option(metavar="B", help="Requests at once.")] = 1,
    density: Annotated[str | None, typer.Option(metavar="D", help="The largest share of the work: 1/16.")] = None,
    coverage: Annotated[
        str | None,
        typer.Option(
            metavar="layer|model",
            help="What must see the whole context. Default: either.",
            autocompletion=_one_of("layer", "model"),
        ),
    ] = None,
    dense_layers: Annotated[int | None, typer.Option(metavar="N", help="First layers that are dense.")] = None,
    arch: Annotated[
        str | None,
        typer.Option(metavar="ARCH", help="Estimate seconds, by measured rates.", autocompletion=_ARCHES),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.yaml", help="Write the recommended one.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the candidates.")] = None,
    json: Json = False,
) -> int:
    """Find patterns for a model and a budget, proved and priced."""
    from patterncc.cli.suggest import run

    return run(
        model, heads, kv_heads, head_dim, v_head_dim, layers, length, kv_budget, batch, density, coverage,
        dense_layers, arch, output, plot, json,
    )  # fmt: skip


@app.command()
def export(
    pattern: Pattern,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="flex|flashinfer|flashmask|fa4|torch",
            help="The library.",
            autocompletion=_one_of("flex", "flashinfer", "flashmask", "fa4", "torch"),
        ),
    ],
    length: Length,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go.")] = Path(),
    json: Json = False,
) -> int:
    """Write what another library needs to apply a pattern."""
    from patterncc.cli.exporting import run

    return run(pattern, to, length, output, json)


@app.command("list")
def list_(json: Json = False) -> int:
    """List the shipped patterns."""
    from patterncc.cli.list import run

    return run(json)


@app.command()
def schema() -> int:
    """Print the JSON Schema of the language, for editors."""
    from patterncc.cli import output
    from patterncc.language import schema

    output.document(schema(), indent=2)
    return 0


@cache_app.command("ls")
def cache_ls(json: Json = False) -> int:
    """List the compiled packages, and what was measured."""
    from patterncc.cli.cache import ls

    return ls(json)


@cache_app.command("clear")
def cache_clear(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only those of this name.", autocompletion=_cached)
    ] = None,
    json: Json = False,
) -> int:
    """Remove compiled packages, and what was measured for them."""
    from patterncc.cli.cache import clear

    return clear(name, json)


@cache_app.command("verify")
def cache_verify(json: Json = False) -> int:
    """Check every file of the cache; exit 1 when one is damaged."""
    from patterncc.cli.cache import verify

    return verify(json)
