"""The command line. `main` runs a command and turns what went wrong into words and an exit code:

0    done, and everything held
1    a property does not hold, or two patterns differ
2    the input or the usage is wrong
70   a fault of patterncc
130  interrupted; 141: nobody reads the output any more
"""

from __future__ import annotations

import os
import sys

FAULT = 70
INTERRUPTED = 130
UNREAD = 141
HELP = os.path.join(os.path.dirname(__file__), "help.txt")  # what typer prints 80 columns wide


def main(arguments: list[str] | None = None) -> int:
    """Run `patterncc ARGUMENTS`; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains as it ends
        return UNREAD
    except KeyboardInterrupt:
        return INTERRUPTED


def _is_wide() -> bool:
    """Whether lines of 80 characters have room. This and the file are for the first impression: to import typer takes
    five times as long as Python itself takes to start."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stdout.fileno()).columns) >= 80
    except (OSError, ValueError):
        return True
