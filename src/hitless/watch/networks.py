"""The pod networks that are watched: named by users, or found in the rules.

Problem: a watch that does not know the pods' addresses sees nothing, and users do not want to type them. Promise: where
no network was named, the masquerade rules of the profile's chains do, as soon as they are there; each network gets
witness packets of the pods that are on *this node*, and of an address in its part that none has: a rule that cuts off
this node's pods alone is a gap, whatever happens to other nodes' addresses. While the agent's chains are empty the
guard's copies of them say it, where a guard is at work. Next stage: ``watching``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hitless.model.families import Family, Network, family_of, within
from hitless.model.rules import Chain, Destination, Masquerade, Rule, Ruleset, Snat, Source
from hitless.model.standby import TABLE as STANDBY
from hitless.model.standby import copied
from hitless.observe import Asking, Judge, Poll, Witnesses, matching
from hitless.observe.pods import part as part_by_routes
from hitless.semantics import ChainName
from hitless.watch.ports import NodePort
from hitless.watch.profiles import Profile, load, shipped
from hitless.watch.tracking import Tracker

__all__ = ["Networks", "Watched", "better", "part_by_rules", "pod_networks"]


@dataclass(slots=True)
class Watched:
    """A pod network, with its judge and its tracker."""

    network: Network
    judge: Judge
    tracker: Tracker
    answer: Poll | None = None
    part: Network | None = None
    counted: bool = False  # whether all pods were evaluated since the rules, or the pods, changed
    chains: frozenset[ChainName] = frozenset()  # that took part in the answers of all pods

    def take(self, answer: Poll) -> None:
        """Keep an answer. One that was given early does not cover the pods that were not evaluated."""
        self.answer, self.counted = answer, answer.whole
        self.chains = answer.chains if answer.whole else self.chains | answer.chains


class Networks:
    """Those that are watched, in the order in which they became known."""

    def __init__(
        self,
        profile: Profile,
        families: Sequence[Family],
        node: NodePort,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._profile, self._families = profile, tuple(families)
        self._watched: dict[Network, Watched] = {}
        self._node, self._monotonic = node, monotonic

    def close(self) -> None:
        """Close the node."""
        self._node.close()

    def __iter__(self) -> Iterator[Watched]:
        return iter(self._watched.values())

    def find(self, ruleset: Ruleset) -> list[tuple[Network, str]]:
        """Watch the networks that the rules name, in families that have none yet; each with the chain that names it."""
        known = {family_of(network) for network in self._watched}
        found = [
            (network, chain)
            for network, chain in pod_networks(ruleset, self._profile).items()
            if family_of(network) in self._families and family_of(network) not in known
        ]
        for network, _ in found:
            self.add(network)
        return found

    def unknown(self) -> str:
        """The message when no network is known."""
        chains = [name for table in self._profile.tables for name in table.networks_from]
        return (
            f"no pod network is known, so no gap can be seen: the rules of {', '.join(chains) or 'no chain'} name "
            "none; name one with --network or in the profile"
        )

    def add(self, network: Network) -> None:
        """Watch a network."""
        translators = [(table.name, chain) for table in self._profile.tables for chain in table.networks_from]
        judge = Judge(network, self._witnesses(network, None), translators)
        self._watched[network] = Watched(network, judge, Tracker(network))

    def settle(self, ruleset: Ruleset) -> None:
        """Let the witnesses of networks come from this node's part, as soon as the rules or the routes tell it."""
        for watched in self._watched.values():
            if watched.part is None:
                network = watched.network
                watched.part = part_by_rules(ruleset, self._profile, network) or self._by_routes(network)
                if watched.part is not None:
                    watched.judge.witnesses = self._witnesses(network, watched.part)

    def refresh(self) -> bool:
        """Read the node again when it is time, or when something was missing; whether there are other witnesses now."""
        if not self._node.look(self._monotonic()):
            return False
        changed = False
        for watched in self._watched.values():
            witnesses = self._witnesses(watched.network, watched.part)
            if witnesses != watched.judge.witnesses:
                watched.judge.witnesses, watched.counted, changed = witnesses, False, True
        return changed

    def _by_routes(self, network: Network) -> Network | None:
        up = (link.name for link in self._node.view.links.values() if link.up)
        return part_by_routes(self._node.view, network, matching(up, self._profile.pod_interfaces))

    def _witnesses(self, network: Network, part: Network | None) -> Witnesses:
        profile = self._profile
        asking = Asking(
            network,
            part,
            profile.inside,
            profile.protocols,
            profile.destinations,
            profile.far_ends,
            profile.marks,
            profile.pod_interfaces,
        )
        return self._node.witnesses(asking)


def pod_networks(ruleset: Ruleset, profile: Profile) -> dict[Network, str]:
    """The networks whose packets the profile's chains masquerade, each with the chain that does."""
    found: dict[Network, str] = {}
    for chain in _named(ruleset, profile):
        for rule in chain.rules:
            if any(isinstance(step, Masquerade | Snat) for step in rule.steps):
                for step in rule.steps:
                    if isinstance(step, Source) and not step.negated and step.network.prefixlen:
                        found.setdefault(step.network, chain.name)
    return found


def better(ruleset: Ruleset, profile: Profile) -> str:
    """Where the agent's rules are in no chain of this profile: the message that names one that fits. Else empty."""
    if _standing(ruleset, profile):
        return ""
    shipped_ones = (load(name) for name in shipped())
    found = {one.name: places for one in shipped_ones if (places := _standing(ruleset, one))}
    if not found:
        return ""
    return (
        f"the profile {profile.name} watches none of the agent's rules here: they are in "
        f"{next(iter(found.values()))}; --profile {' or '.join(found)} fits"
    )


def _standing(ruleset: Ruleset, profile: Profile) -> str:
    """The agent's own chains of a profile that exist and hold rules, as a text."""
    return ", ".join(
        f"{table.family} {table.name} {chain}"
        for table in ruleset.tables
        for interest in profile.tables
        if interest.name == table.name
        for chain in interest.networks_from
        if chain in table.chains and table.chains[chain].rules
    )


def part_by_rules(ruleset: Ruleset, profile: Profile, network: Network) -> Network | None:
    """This node's part of ``network``, as flannel's rules tell it: traffic between that part and the whole returns."""
    parts = (_part(rule, network) for chain in _named(ruleset, profile) for rule in chain.rules)
    return next((part for part in parts if part is not None), None)


def _named(ruleset: Ruleset, profile: Profile) -> Iterator[Chain]:
    """The chains that name pod networks: the agent's own, and behind them what the guard keeps of them."""
    kept: list[Chain] = []
    for table in ruleset.tables:
        for interest in profile.tables:
            for name in interest.networks_from:
                if interest.name == table.name and name in table.chains:
                    yield table.chains[name]
                elif table.name == STANDBY:
                    kept += [table.chains[one] for one in copied(interest.name, name) if one in table.chains]
    yield from kept


def _part(rule: Rule, network: Network) -> Network | None:
    ends = {
        step.network
        for step in rule.steps
        if isinstance(step, Source | Destination) and family_of(step.network) is family_of(network)
    }
    parts = [end for end in ends if end != network and within(end, network)]
    return parts[0] if network in ends and len(parts) == 1 and len(ends) == 2 else None
