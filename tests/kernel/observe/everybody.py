"""The three observers as they run: each reads the node's rules, links and routes itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from tests.unit.observe.three import agent_says, guard_says

from hitless.guard.places import Places
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import Namespace
from hitless.model.events import RuleState
from hitless.model.families import Family, Network
from hitless.model.standby import TABLE
from hitless.observe import LiveNode
from hitless.observe.rules import RulesObserver
from hitless.watch import Watch, WatchOptions, load
from hitless.watch.networks import part_by_rules

HANG = 60.0  # seconds: what follows does so within a few hundredths


class Everybody:
    """A context manager. The guard's observer follows each state, the agent's reads the present one, and the watch is
    started again each time, like ``watch --once``."""

    def __init__(self, namespace: Namespace, families: Sequence[Family], profile: str = "flannel") -> None:
        self._namespace, self._families, self._profile = namespace, tuple(families), load(profile)
        self._open = ExitStack()
        self._agent = RulesObserver(self._families, namespace, follow_legacy=False)
        self._open.callback(self._agent.close)
        self._guard = self._open.enter_context(RulesObserver(self._families, namespace, Clock(), tables=(TABLE,)))
        self._guarded = self._guard.first.ruleset

    def __enter__(self) -> Everybody:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def say(self, network: Network, family: Family, uplink: str = "") -> dict[str, tuple[str, str]]:
        """State and reason of each."""
        watched = WatchOptions(self._profile, self._namespace, (network,), uplink, families=(family,), urgent=False)
        with Watch(watched) as watch:
            [state] = [event for event in watch.once() if isinstance(event, RuleState)]
        ruleset = self._agent.now((family,))
        part = part_by_rules(ruleset, self._profile, network)
        around = LiveNode(self._namespace, (family,), uplink=uplink)
        places = Places(self._namespace, (family,), uplink)
        try:
            agent = agent_says(ruleset, network, part, around)
            while self._guard.waiting and (seen := self._guard.next(0)) is not None:
                self._guarded = seen.ruleset
            guard = guard_says(self._guarded, network, part, places)
            end = time.monotonic() + HANG
            while guard[0] != state.state and time.monotonic() < end:  # it follows: that takes its time
                self._guard.look_around()
                if (seen := self._guard.next(0.02)) is not None:
                    self._guarded = seen.ruleset
                guard = guard_says(self._guarded, network, part, places)
        finally:
            around.close()
            places.close()
        return {"watch": (state.state, state.reason), "agent": agent, "guard": guard}
