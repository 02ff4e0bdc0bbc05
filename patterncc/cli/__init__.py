"""The command line. `main` runs a command and turns errors into messages and an exit code: see `codes`."""

from __future__ import annotations

import os
import sys

from patterncc.cli.codes import INTERRUPTED, UNREAD, WRONG

HELP = os.path.join(os.path.dirname(__file__), "help.txt")  # what typer prints 80 columns wide


def main(arguments: list[str] | None = None) -> int:
    """Run `patterncc ARGUMENTS`; the exit code. Without arguments it is the whole program, which nothing interrupts any
    more once it is done."""
    if arguments is not None:
        return _main(arguments)
    try:
        return _main(sys.argv[1:])
    finally:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # while the interpreter ends, which torch makes long


def _main(arguments: list[str]) -> int:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        lenient = (
            ("strict",) if "utf" in str(getattr(stream, "encoding", "")).lower() else ("strict", "surrogateescape")
        )
        if getattr(stream, "errors", None) in lenient:  # a path or a word that this encoding has no letters for
            stream.reconfigure(errors="backslashreplace")
    try:
        if arguments in (["--help"], ["-h"]) and _is_wide():
            with open(HELP, encoding="utf-8") as file:
                sys.stdout.write(file.read())
            sys.stdout.flush()
            return 0
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # to look for some takes time
        from patterncc.cli.run import run

        return run(arguments)
    except BrokenPipeError:
        from patterncc.cli.output import mute

        mute(sys.stdout)
        return UNREAD
    except KeyboardInterrupt as interruption:
        _interrupted(str(interruption) or "interrupted")
        return INTERRUPTED
    except OSError as error:  # commands name what they cannot read or write; what is left is stdout itself
        from patterncc.cli.output import mute, note
        from patterncc.errors import reason

        mute(sys.stdout)
        note(f"cannot write the output: {reason(error)}")
        return WRONG


def _interrupted(text: str) -> None:
    """Say so in one line, in the place of a line of progress; without an import, which another Ctrl-C could meet."""
    try:
        print("\r\x1b[K" * sys.stderr.isatty() + text, file=sys.stderr)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _is_wide() -> bool:
    """Whether lines of 80 characters have room. This and the file are for the first impression: to import typer takes
    five times as long as Python itself takes to start."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stdout.fileno()).columns) >= 80
    except (OSError, ValueError):
        return True
