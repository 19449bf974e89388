"""The watch: every committed change of the rules that carry egress, as events.

Problem: ``watch iptables -L`` on an idle machine sees less than half of the gaps of an agent's restart (the shorter,
the fewer), and never which process made them. Promise: ``Watch.events`` yields a ``Header``, the state of each pod
network, then changes with their writers, states, gaps, lost events, a heartbeat that measures the watch itself, and a
``Summary`` at the end, however it ends. ``loop`` does this; here the real feed, node and time are opened for it.
Next stages: ``hitless.cli.watch``, ``drill``.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from hitless.errors import InputError
from hitless.kernel.clock import Clock
from hitless.model.events import Event
from hitless.model.families import family_of
from hitless.observe import LiveNode
from hitless.watch.feeds import Feed
from hitless.watch.interest import interest
from hitless.watch.loop import WatchLoop
from hitless.watch.networks import Networks
from hitless.watch.options import WatchOptions
from hitless.watch.ports import MachineTime, World
from hitless.watch.standbys import StandbyTables

__all__ = ["Watch"]


class Watch:
    """A context manager. ``events`` may be iterated once; ``stop`` ends it from a signal handler or another thread.

    Opening raises ``MissingError`` without permission, ``InputError`` when the options contradict each other.
    """

    def __init__(self, options: WatchOptions, clock: Clock | None = None, *, world: World | None = None) -> None:
        """``world``: something else than this machine."""
        profile = options.profile
        self.options = options
        self.clock = clock or Clock.from_environment()
        self.families = options.families or profile.families
        self.backends = options.backends or profile.backends
        named = options.networks or tuple(each for each in profile.networks if family_of(each) in self.families)
        for network in named:
            if family_of(network) not in self.families:
                raise InputError(f"{network} is of a family that is not watched", where="--network")
        world = world or self._machine()
        self._feed = world.feed
        self._networks = Networks(profile, self.families, world.node, world.time.monotonic)
        self._loop = WatchLoop(
            options, self._networks, world, self.clock,
            families=self.families, backends=self.backends, named=bool(named),
        )  # fmt: skip
        self._stopping = False
        try:
            for network in named:
                self._networks.add(network)
        except BaseException:
            self.close()
            raise

    def _machine(self) -> World:
        options = self.options
        feed = Feed(
            options.namespace,
            self.families,
            self.backends,
            clock=self.clock,
            interest=interest(options.profile),
            receive_buffer=options.receive_buffer,
            urgent=options.urgent,
        )
        try:
            node = LiveNode(options.namespace, self.families, uplink=options.uplink or options.profile.uplink)
        except BaseException:
            feed.close()
            raise
        return World(feed, node, MachineTime(), StandbyTables(options.namespace))

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End watching."""
        self._feed.close()
        self._networks.close()

    def stop(self) -> None:
        """End ``events`` with its summary."""
        self._stopping = True
        self._feed.wake()

    def once(self) -> Iterator[Event]:
        """The state of now as a whole stream: Header, the state of each pod network, Summary."""
        return self._loop.once()

    def events(self) -> Iterator[Event]:
        """Header, then events as they happen, then Summary."""
        yield from self._loop.begin()
        while not self._stopping and not self._loop.over:
            yield from self._loop.turn()
        yield from self._loop.end()
