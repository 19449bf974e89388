"""The guard's process: real ports, opened in order and closed whatever happens, and the loop between them.

Promise: when it ends, for whatever reason, the kernel keeps the standby. A guard that failed leaves behind why, until
the next one starts. Next stage: users (``hitless.cli.guard``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from hitless.daemon.logs import Log
from hitless.errors import ours
from hitless.guard import statements
from hitless.guard.loop import GuardLoop, GuardPorts, GuardSettings
from hitless.guard.places import Places
from hitless.guard.poisoned_flows import Healer
from hitless.guard.ports import GuardMachineTime
from hitless.guard.reporting import Reporter
from hitless.guard.standby_table import StandbyTable
from hitless.kernel import ipsets
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.model.standby import TABLE
from hitless.observe.rules import RulesObserver

__all__ = ["Guard", "GuardSettings", "drive"]


class Guard:
    """One node's guard; ``run`` returns when ``stop`` is set. For one thread."""

    def __init__(
        self,
        settings: GuardSettings,
        reporter: Reporter,
        log: Log,
        *,
        namespace: Namespace = HERE,
        clock: Clock | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """``ready`` is called once, when the standby is installed (or there is nothing to learn from yet)."""
        self.settings = settings
        self.reporter = reporter
        self._ready = ready
        self._log = log
        self._namespace = namespace
        self._clock = clock or Clock.from_environment()

    def run(self, stop: threading.Event) -> None:
        """Guard until ``stop``. Raises ``Unclear`` when the primary cannot be understood at start."""
        settings, namespace = self.settings, self._namespace
        primary = settings.primary
        with (
            RulesObserver(settings.families, namespace, self._clock, tables=(TABLE,)) as observer,
            ExitStack() as ports,
        ):
            tables = None if settings.observe else StandbyTable(settings.families, namespace)
            if tables is not None:
                ports.callback(tables.close)
            healer = Healer(namespace)
            ports.callback(healer.close)
            around = Places(namespace, settings.families, settings.uplink)
            ports.callback(around.close)
            world = GuardPorts(
                observer,
                tables,
                healer,
                around,
                lambda spoken: statements.read(primary.subnet_files, primary.processes, spoken, namespace),
                GuardMachineTime(self._clock),
                lambda text: ipsets.named(text, namespace),
            )
            drive(GuardLoop(settings, world, self.reporter, self._log), stop.is_set, self._ready)


def drive(loop: GuardLoop, stopped: Callable[[], bool], ready: Callable[[], None] = lambda: None) -> None:
    """Turn until ``stopped``, and end in order, however that comes. Raises what ended it, as one of our errors."""
    reporter = loop.reporter
    try:
        loop.begin()
        ready()
        while not stopped():
            loop.turn()
    except BaseException as error:
        failure = ours(error, "the guard")
        if loop.up:  # what a guard that failed leaves behind says so, until the next one starts
            reporter.ended = str(failure)
        if isinstance(error, Exception):
            raise failure from error
        raise
    finally:
        with ExitStack() as last:  # each of them, whatever another one raises
            last.callback(reporter.close, loop.sides)
            last.callback(loop.end)
