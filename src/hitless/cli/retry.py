"""``hitless retry -- COMMAND``: run a command again where a gap kept it from connecting.

Problem: scripts, hooks and cron jobs fail in the second in which an agent restarts, and a loop around them hides real
errors. Promise: every attempt is a new process, so a new connection from a new source port; for programs whose exit
codes are known, only those of a gap are repeated; the exit code is the command's own. ``hitless.retry`` is the same for
Python code; this command uses its waits and its terms.
"""

from __future__ import annotations

import os
import random
import shlex
import signal
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import PurePath

import click

from hitless.cleaning import clean
from hitless.cli.numbers import number
from hitless.cli.sections import Sections
from hitless.errors import InputError, MissingError, ProgramError
from hitless.kernel import processes
from hitless.model import reading

__all__ = ["GAP_CODES", "command"]

GAP_CODES: dict[str, frozenset[int]] = {
    "curl": frozenset({5, 6, 7, 28, 35}),  # proxy or host not resolved, no connection, time-out, TLS handshake
    "wget": frozenset({4}),  # network failure
    "ssh": frozenset({255}),
    "scp": frozenset({255}),
    "sftp": frozenset({255}),
    "git": frozenset({128}),
    "psql": frozenset({2}),  # the connection to the server went bad
    "dig": frozenset({9}),  # no reply from a server
    "ping": frozenset({1, 2}),
    "rsync": frozenset({10, 12, 30, 35, 255}),
}
"""Exit codes that may be a gap's, of programs that document theirs (their manual pages)."""

_PATIENCE = 2.0  # seconds for a command to end after SIGTERM
_NEVER = frozenset({126, 127})  # not executable, not found (POSIX); and what ended by a signal
_EXITS = (
    "Exit codes: the command's own, of its last attempt (128 + N when signal N ended it); 3 wrong options, 126 the "
    "command cannot be run, 127 it is not there."
)
_EXAMPLES = {
    "hitless retry -- curl -fsS --connect-timeout 2 https://example.org/": "again where no connection was made",
    "hitless retry --deadline 20 --on 1,2 -- ./notify.sh": "again where it ends with 1 or 2",
}


@click.command(
    "retry",
    cls=Sections,
    examples=_EXAMPLES,
    epilog=_EXITS,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@number("--deadline", limits=(0.1, 86400.0), default=45.0, help="Seconds for all attempts, waits included.")
@number("--attempts", limits=(1, 10_000), metavar="N", help="At most so many. [default: as many as fit]")
@number("--wait-max", limits=(0.01, 3600.0), default=2.0, help="The longest wait between two attempts, in seconds.")
@click.option(
    "--on",
    "codes",
    metavar="CODES",
    help="Exit codes that are tried again, such as 4,28, or any. [default: those of a gap for curl, wget, ssh, git, "
    "psql and others that are known; any for other programs]",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing about attempts.")
@click.argument("argv", nargs=-1, metavar="-- COMMAND [ARGUMENT…]", type=click.UNPROCESSED)
def command(
    deadline: float, attempts: int | None, wait_max: float, codes: str | None, quiet: bool, argv: tuple[str, ...]
) -> int:
    """Run a command, and again while a gap of the network keeps it from connecting.

    Each attempt is a new process: a new connection from a new source port, because a flow that began in a gap stays
    dead. Give the command a short time to connect (curl --connect-timeout 2): what hangs is not ended before the
    deadline. Its input is read from its beginning again where it is a file.
    """
    if not argv:
        raise InputError("there is no command", where="hitless retry", expected="hitless retry -- COMMAND [ARGUMENT…]")
    chosen = _codes(codes, argv)
    return _Attempts(argv, chosen, deadline, attempts, wait_max, quiet=quiet).run()


def _codes(text: str | None, argv: Sequence[str]) -> frozenset[int] | None:
    """The exit codes to try again; ``None`` for any."""
    if text is None:
        return GAP_CODES.get(PurePath(argv[0]).name)
    if text == "any":
        return None
    where = "--on"
    found = frozenset(reading.whole(one.strip(), where=where, least=1, most=255) for one in text.split(","))
    if found & _NEVER:
        raise InputError(
            "126 and 127 say that the command cannot be run", where=where, expected="other exit codes, or any"
        )
    return found


class _Attempts:
    """The attempts at one command."""

    def __init__(
        self,
        argv: Sequence[str],
        codes: frozenset[int] | None,
        deadline: float,
        most: int | None,
        wait_max: float,
        *,
        quiet: bool,
    ) -> None:
        self._argv, self._codes, self._most, self._wait_max, self._quiet = argv, codes, most, wait_max, quiet
        self._begin = time.monotonic()
        self._deadline = self._begin + deadline
        self._length = deadline
        self._process: processes.Process | None = None
        self._signal: int | None = None

    def run(self) -> int:
        """Try until the command ends well, may not be tried again, or there is no time; returns the exit code."""
        start = _place_of_input()
        before = {one: signal.signal(one, self._pass_on) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
        try:
            number = 0
            while True:
                number += 1
                if number > 1 and start is not None:
                    os.lseek(0, start, os.SEEK_SET)
                code, limited = self._attempt()
                why = self._over(code, number, limited=limited)
                if why is not None:
                    if why and code:
                        self._say(f"{self._named(code)} at attempt {number}; not tried again: {why}")
                    return code
                most = min(self._wait_max, 0.1 * 2 ** min(number - 1, 30))
                wait = random.uniform(0, most)
                if time.monotonic() + wait >= self._deadline:
                    self._say(f"{self._named(code)} at attempt {number}; not tried again: {self._limit()}")
                    return code
                self._say(f"{self._named(code)} at attempt {number}; again in {wait:.2f} s")
                self._sleep(wait)
                if self._signal is not None:
                    return 128 + self._signal
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _attempt(self) -> tuple[int, bool]:
        """The exit code, and whether the deadline ended it."""
        try:
            self._process = processes.start(self._argv, stdin=None, stdout=None, stderr=None, untouched=True)
        except (MissingError, ProgramError) as error:
            absent = isinstance(error, MissingError) or isinstance(error.__cause__, FileNotFoundError)
            click.echo(f"hitless retry: {clean(str(error))}", err=True)
            return (127 if absent else 126), False
        if self._signal is not None:  # it came while the process was started
            self._process.send_signal(self._signal)
        code = processes.ended(self._process, max(0.05, self._deadline - time.monotonic()))
        limited = code is None
        if code is None:
            self._process.terminate()
            code = processes.ended(self._process, _PATIENCE)
        if code is None:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return (code if code >= 0 else 128 - code), limited

    def _over(self, code: int, number: int, *, limited: bool) -> str | None:
        """Why there is no further attempt, empty where no message is needed; ``None``: try again."""
        if code == 0 or code in _NEVER:
            return ""
        if self._signal is not None:
            return ""
        if limited:
            return self._limit()
        if code > 128 and self._codes is None:
            return "a signal ended it"
        if self._codes is not None and code not in self._codes:
            return f"this exit code is none of a gap ({', '.join(map(str, sorted(self._codes)))}; --on names others)"
        if self._most is not None and number >= self._most:
            return f"--attempts {self._most}"
        return None

    def _limit(self) -> str:
        return f"--deadline {self._length:g}"

    def _named(self, code: int) -> str:
        return f"{clean(shlex.quote(self._argv[0]))} ended with {code}"

    def _say(self, text: str) -> None:
        if not self._quiet:
            click.echo(f"hitless retry: {text}", err=True)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._signal is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _pass_on(self, number: int, _: object) -> None:
        """A signal for us is one for the command; the terminal's Ctrl-C reaches it anyway."""
        self._signal = number
        process = self._process
        if process is not None and not (number == signal.SIGINT and sys.stdin.isatty()):
            process.send_signal(number)


def _place_of_input() -> int | None:
    """The offset of standard input, when it is a file that can be read again."""
    try:
        return os.lseek(0, 0, os.SEEK_CUR) if stat.S_ISREG(os.fstat(0).st_mode) else None
    except OSError:
        return None
