"""The command ``hitless``: one module per command, loaded when it is asked for.

Problem: the daemons run on every node and must not pay for the tools' libraries, and ``--help`` must be quick.
Promise: importing this package imports nothing but the standard library; a command's module is imported when the
command is named. Modules of tools define ``command`` (click); modules of daemons (``agent``, ``guard``) define
``main(argv) -> int`` (argparse). Errors become one message on standard error and an exit code (``exits.Exit``).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "DAEMONS", "main"]

COMMANDS: dict[str, str] = {}
"""Tools (click) and what they are for, in the order of ``hitless --help``."""

DAEMONS: dict[str, str] = {}
"""Daemons (argparse) and what they are for."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that ``argv`` names (default: the process's arguments) and exit with its code."""
    from hitless.cli.exits import Exit

    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in DAEMONS:
        code = int(importlib.import_module(f"hitless.cli.{arguments[0]}").main(arguments[1:]))
    else:
        from hitless.cli.tools import run_tools

        try:
            code = run_tools(arguments)
        except KeyboardInterrupt:
            code = Exit.INTERRUPTED
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
    sys.exit(code)
