"""Run a command, and turn errors into messages and an exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from typing import Any

from patterncc.cli import output
from patterncc.cli.app import command
from patterncc.cli.codes import FAULT, INTERRUPTED, WRONG
from patterncc.errors import PatternError, UsageError, did_you_mean, quote, reason

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
NEEDED = "torch", "triton", "numpy"  # imported by the commands that compute, as late as they can
REFUSED = {  # by the system, for a reason that its user can mend
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE),
}


def run(arguments: list[str]) -> int:
    """The exit code of `patterncc ARGUMENTS`; KeyboardInterrupt and errors of stdout are left to the caller."""
    with warnings.catch_warnings():
        warnings.showwarning = output.warning
        warnings.simplefilter("default", UserWarning)
        try:
            code = _called(arguments)
            sys.stdout.flush()
            return code
        except PatternError as error:
            output.error(error)
            return int(getattr(error, "exit_code", WRONG))
        except BrokenPipeError:
            raise
        except MemoryError:
            output.note("there is not enough memory for this")
            output.note("  help: a shorter --length, or a pattern with fewer different heads, takes less")
            return WRONG
        except ImportError as error:
            if (missing := (error.name or "").partition(".")[0]) not in NEEDED:
                return _fault(error)
            output.note(f"{missing} cannot be imported: {error}")
            output.note(
                f"  help: install it for the Python that runs patterncc: `{sys.executable} -m pip install {missing}`"
            )
            return WRONG
        except Exception as error:
            if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename is None:
                raise  # of print: commands name the files that they cannot write
            if isinstance(error, OSError) and error.errno in REFUSED and error.filename is not None:
                output.note(f"cannot use {os.fsdecode(error.filename)}: {reason(error)}")
                return WRONG
            return _fault(error)


def _called(arguments: list[str]) -> int:
    program = command()
    if "_PATTERNCC_COMPLETE" in os.environ:
        return program.main(arguments, "patterncc")
    try:
        with program.make_context("patterncc", list(arguments)) as context:
            return program.invoke(context) or 0
    except Exception as error:
        return _of_typer(error)


def _of_typer(error: Any) -> int:
    """The exit code of one of typer's own exceptions (an exit, or wrong usage), in any of its versions."""
    if isinstance(error, PatternError) or not hasattr(error, "exit_code"):
        if type(error).__name__ == "Abort":
            return INTERRUPTED
        raise error
    if not hasattr(error, "format_message"):
        return int(error.exit_code)
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context else "patterncc"
    if type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help(), file=sys.stderr)
        return WRONG
    message = str(error.format_message()).strip().replace("\n", " ")
    meant: str | None = None
    if options := getattr(error, "possibilities", None):
        message, meant = f"no such option: {error.option_name}", min(options)
    elif found := re.match(r"No such command '([^']*)'", message):
        message, meant = f"no such command {quote(found[1])}", did_you_mean(found[1], context.command.commands)
    hint = f"did you mean {meant}?" if meant else f"`{path} --help` says what it takes"
    raise UsageError(f"{path}: {message[:1].lower()}{message[1:].rstrip('.')}", hint) from error


def _fault(error: Exception) -> int:
    from patterncc.debug import debugging

    if debugging("traceback"):
        import traceback

        traceback.print_exc()
    lines = str(error).strip().splitlines()[:1]
    kind = ": ".join([type(error).__name__, *lines])
    output.note(f"this is a fault of patterncc, not of your pattern: {kind}")
    output.note("  help: please report it, with the pattern and what `PATTERNCC_DEBUG=traceback patterncc ...` prints")
    return FAULT
