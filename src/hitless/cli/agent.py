"""``hitless agent``: run, ``plan``, ``cleanup``. No click here: a daemon pays for what it imports.

Exit codes: 0 stopped as asked (or printed), 1 wrong input (nothing was changed), 3 this machine cannot do it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from hitless.cli.exits import Exit
from hitless.errors import HitlessError, InputError

__all__ = ["main"]

_SWITCH_S = 0.0002
"""How long the thread that reads all rules may delay the thread that repairs ours, each time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent, or one of its commands."""
    from hitless.sources.flags import parse_flags, usage, verb

    command, arguments = verb(list(sys.argv[2:] if argv is None else argv), ("plan", "cleanup", "run"))
    as_json = "--json" in arguments and command != "run"
    if as_json:
        arguments.remove("--json")
    try:
        options = parse_flags(arguments, os.environ)
        if options.help:
            _say(usage())
            return Exit.PASS
        if options.version:
            from hitless import __version__

            _say(__version__)
            return Exit.PASS
        if command == "run":
            _run(options)
        else:
            from hitless.agent.plan_command import cleanup_text, plan_text

            _say(plan_text(options, as_json=as_json) if command == "plan" else cleanup_text(options, as_json=as_json))
        return Exit.PASS
    except InputError as error:
        _complain(error)
        return Exit.FAIL
    except HitlessError as error:
        _complain(error)
        return Exit.ERROR
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _run(options: object) -> None:
    import gc

    # modules make no garbage worth a search (10 ms of a start), and stay for good
    gc.disable()
    import asyncio

    from hitless.agent.daemon import run, started_at
    from hitless.daemon.lines import LineWriter
    from hitless.sources import Options

    gc.freeze()
    gc.enable()
    assert isinstance(options, Options)
    sys.setswitchinterval(_SWITCH_S)
    with LineWriter(sys.stderr.fileno()) as lines:
        asyncio.run(run(options, lines, started_at()))


def _say(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _complain(error: HitlessError) -> None:
    from hitless.cli.error_messages import of_ours

    sys.stderr.write(f"hitless: {of_ours(error, 'agent')}\n")
