"""``hitless guard``: run the guard, show its state, remove its standby.

A daemon: argparse, and nothing imported that it does not need. Exit codes as everywhere (``hitless --help``):
``status`` ends with 0 while pods are protected, 1 while they are not, 2 when that is not known.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hitless.cli.exits import HELP, Exit
from hitless.errors import HitlessError, InputError, MissingError
from hitless.model import reading
from hitless.model.families import Family, Network

__all__ = ["completions", "main"]

_RUN = Path("/run/hitless-guard")
_JOURNAL = "/var/log/hitless/guard.jsonl"
_COMMANDS = {
    "run": "guard until SIGTERM; the standby stays in the kernel",
    "status": "what it protects, and what happened",
    "remove": "stop a running guard and remove the standby",
}


_EXAMPLES = """examples:
  hitless guard --observe
      report gaps, touch nothing
  hitless guard --profile canal
      guard a node of RKE2 until SIGTERM
  hitless guard status --json
      is this node protected? (exit code 0 yes, 1 no, 2 cannot tell)
  hitless guard remove
      stop a running guard and remove its standby

"""


class _Parser(argparse.ArgumentParser):
    """Errors in the form of the other commands, without the usage text."""

    def error(self, message: str) -> NoReturn:
        from hitless.cli.error_messages import of_argparse

        known = [option for action in self._actions for option in action.option_strings]
        self.exit(Exit.ERROR, f"hitless: {of_argparse('guard', message, known)}\n")

    def refuse_unknown(self, argv: Sequence[str]) -> None:
        """Name the unknown option; argparse would first report its value."""
        known = [option for action in self._actions for option in action.option_strings]
        for token in argv:
            if token == "--":
                break
            if token.startswith("--") and not any(one.startswith(token.partition("=")[0]) for one in known):
                self.error(f"unrecognized arguments: {token}")


def _parser() -> _Parser:
    parser = _Parser(
        prog="hitless guard",
        description="A hot standby for the masquerading of another node agent: while that agent's rules are\n"
        "gone, new connections of pods are still translated. Run it on the node, in\nthe host's network.",
        epilog=_EXAMPLES + textwrap.fill(f"{HELP} See docs/guard.md.", 78),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, default=_RUN, metavar="DIR", help="lock and state (%(default)s)")
    parser.add_argument("--profile", default="flannel", metavar="NAME|FILE", help="the primary's rules (%(default)s)")
    parser.add_argument("--network", action="append", default=[], help="a pod network that the rules do not name")
    parser.add_argument("--uplink", metavar="INTERFACE", help="the interface to the outside (as the routes say)")
    parser.add_argument("--family", choices=["ipv4", "ipv6", "dual"], default="dual")
    parser.add_argument("--observe", action="store_true", help="only report gaps, change nothing")
    parser.add_argument("--journal", default=_JOURNAL, metavar="FILE", help="every gap (%(default)s; '' for none)")
    parser.add_argument("--metrics", metavar="ADDRESS:PORT", help="serve Prometheus metrics (off by default)")
    parser.add_argument("--events", action="store_true", help="post Kubernetes Events (in a cluster)")
    parser.add_argument("-v", "--verbose", action="count", default=0)
    parser.add_argument("--json", action="store_true", help="status: one object")
    # one flat parser: every option is taken in front of the command and behind it
    parser.add_argument(
        "command", nargs="?", choices=list(_COMMANDS), default="run", metavar="COMMAND", help=_commands()
    )
    return parser


def _commands() -> str:
    return "; ".join(f"{name}: {help}" for name, help in _COMMANDS.items()) + " (default: run)"


def completions() -> tuple[list[str], list[str], list[str]]:
    """The commands, the options that take a value, and those that take none: for a shell's completion."""
    actions = [one for one in _parser()._actions if one.option_strings]
    names = {one.option_strings[-1]: one.nargs == 0 for one in actions}
    switches = [name for name, is_switch in names.items() if is_switch]
    return list(_COMMANDS), [name for name in names if name not in switches], switches


def main(argv: Sequence[str]) -> int:
    """Run a subcommand; errors become one message and exit code 3."""
    try:
        parser = _parser()
        parser.refuse_unknown(argv)
        options = parser.parse_intermixed_args(list(argv))
        if options.json and options.command != "status":
            parser.error(f"argument --json: belongs to status, not to {options.command}")
    except SystemExit as end:
        return Exit.PASS if end.code in (0, None) else Exit.ERROR
    try:
        if options.observe and options.command == "remove":
            raise InputError(
                "touches nothing, and remove takes the standby away", where="--observe", expected="one of the two"
            )
        if options.command == "status":
            return _status(options)
        if options.command == "remove":
            return _remove(options)
        return _run(options)
    except HitlessError as error:
        from hitless.cli.error_messages import of_ours

        sys.stderr.write(f"hitless: {of_ours(error, 'guard')}\n")
        return Exit.ERROR
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(reading.network(text, where="--network") for text in texts)


def _families(name: str) -> tuple[Family, ...]:
    return (Family.IPV4, Family.IPV6) if name == "dual" else (Family(name),)


def _run(options: argparse.Namespace) -> int:
    from hitless.cli.terminal_log import TerminalLog
    from hitless.daemon.lines import LineWriter
    from hitless.daemon.logs import Log
    from hitless.daemon.notify import Notifier
    from hitless.daemon.signals import set_on_end
    from hitless.guard import primaries
    from hitless.guard.journal import Journal
    from hitless.guard.locking import Lock
    from hitless.guard.reporting import Reporter
    from hitless.guard.running import Guard, GuardSettings
    from hitless.guard.serving import serving
    from hitless.kernel.clock import Clock
    from hitless.kernel.privileges import net_admin
    from hitless.observe import checked_interface

    settings = GuardSettings(
        primaries.load(options.profile),
        _families(options.family),
        _networks(options.network),
        checked_interface(options.uplink, "--uplink") if options.uplink is not None else "",
        options.observe,
    )
    if not net_admin():
        raise MissingError(
            f"the guard writes rules, and this process (user {os.geteuid()}) has no CAP_NET_ADMIN; nothing was changed",
            remedy="run it as root (sudo hitless guard), or as its systemd unit or the chart does",
        )
    clock = Clock.from_environment()
    stop = threading.Event()
    set_on_end(stop)
    with LineWriter(sys.stderr.fileno()) as lines:
        # readable lines for a terminal, JSON for everything else
        log = Log(TerminalLog(lines) if sys.stderr.isatty() else lines, verbosity=options.verbose)
        post = None
        if options.events:
            from hitless.guard.kubernetes import Poster

            post = Poster.from_cluster(os.environ, log).post
        with Lock(options.run_dir / "lock"):
            state = options.run_dir / "state.json"
            journal = Journal(Path(options.journal) if options.journal else None)
            reporter = Reporter(log, journal, clock, state=state, post=post)
            notifier = Notifier(os.environ)
            guard = Guard(settings, reporter, log, clock=clock, ready=lambda: notifier.say("READY=1"))
            with serving(options.metrics, reporter, log):
                guard.run(stop)
            notifier.say("STOPPING=1")
    return Exit.PASS


def _status(options: argparse.Namespace) -> int:
    from hitless.guard import status

    found = status.read(options.run_dir)
    sys.stdout.write(json.dumps(found.facts, indent=1) + "\n" if options.json else found.text() + "\n")
    return {"protected": Exit.PASS, "unprotected": Exit.FAIL}.get(found.verdict, Exit.INCONCLUSIVE)


def _remove(options: argparse.Namespace) -> int:
    from hitless.guard import locking
    from hitless.kernel.nftables.owned import OwnedTables
    from hitless.model.standby import TABLE

    stopped = locking.stop(options.run_dir / "lock")
    tables = OwnedTables(TABLE)
    try:
        gone = tables.remove()
    finally:
        tables.close()
    with contextlib.suppress(OSError):  # what a guard that failed left behind
        (options.run_dir / "state.json").unlink(missing_ok=True)
    parts = [f"stopped the guard (pid {stopped})"] if stopped else []
    parts.append(f"removed the standby for {', '.join(gone)}" if gone else "there was no standby")
    sys.stdout.write("; ".join(parts) + "\n")
    return Exit.PASS
