"""The command ``hitless``: one module per command, loaded when it is asked for.

Problem: the daemons run on every node and must not pay for the tools' libraries, and ``--help`` must be quick.
Promise: importing this package imports nothing but the standard library; a command's module is imported when the
command is named. Modules of tools define ``command`` (click); modules of daemons (``agent``, ``guard``) define
``main(argv) -> int`` (argparse). Errors become one message on standard error and an exit code (``exits.Exit``).
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from hitless.cli.commands import COMMANDS, DAEMONS

__all__ = ["COMMANDS", "DAEMONS", "main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that ``argv`` names (default: the process's arguments) and exit with its code."""
    from hitless.cli.exits import Exit

    _stand_on_three()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # also while a command's libraries are loaded, which takes a while
        with contextlib.suppress(OSError):
            sys.stderr.write("interrupted\n")
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        code = Exit.UNHEARD
    except OSError as error:
        # Python's own exit code, 1, would read as a verdict
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
        _complain(f"cannot write the output: {error.strerror}" if full else _defect(error))
        code = Exit.ERROR
    except Exception as error:  # noqa: BLE001 - the process's border
        _complain(_defect(error))
        code = Exit.ERROR
    try:
        sys.stdout.flush()
    except OSError as error:
        # what is still buffered cannot be written: Python would report that once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.UNHEARD if isinstance(error, BrokenPipeError) else Exit.ERROR
    sys.exit(code)


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"hitless: {text}\n")


def _defect(error: Exception) -> str:
    from hitless.errors import ours

    return str(ours(error, "the command"))


def _run(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in DAEMONS:
        return int(importlib.import_module(f"hitless.cli.{arguments[0]}").main(arguments[1:]))
    from hitless.cli.interrupts import as_interrupt

    # a container's first process, too: for it the kernel ignores SIGTERM until there is a handler
    with as_interrupt():
        from hitless.cli.tools import run_tools

        return run_tools(arguments)


def _stand_on_three() -> None:
    """Open the descriptors 0, 1 and 2 that the caller closed: else a socket gets the number, and output goes into
    it."""
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))
    from hitless.cli.safe_output import Door

    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if isinstance(stream, io.TextIOWrapper):
            # what a terminal cannot show becomes a question mark; file names are written unchanged
            known = codecs.lookup(stream.encoding).name == "utf-8"
            stream.reconfigure(errors="surrogateescape" if known else "replace")
        if type(stream) is io.TextIOWrapper:
            setattr(sys, name, Door(stream))
