"""The pod networks that are watched: named by people, or found in the rules.

Problem: a watch that does not know the pods' addresses sees nothing, and nobody wants to type them. Promise: where
nobody named a network, the masquerade rules of the profile's chains do, as soon as they are there; each network gets
witness packets that come from *this node's* part of it, by a pod's interface, and leave by the uplink: a rule that cuts
off this node's pods alone is a gap, whatever happens to other nodes' addresses. While the agent's chains are empty the
guard's copies of them say it, where a guard is at work. Next stage: ``watching``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hitless.guard.learning import TABLE as STANDBY
from hitless.guard.learning import copied
from hitless.kernel.links import interfaces, routes, uplink
from hitless.kernel.namespaces import Namespace
from hitless.model.families import Family, Network, family_of
from hitless.model.packets import Packet
from hitless.model.rules import Chain, Destination, Masquerade, Rule, Ruleset, Snat, Source
from hitless.semantics import witnesses
from hitless.watch.judging import Answer, Judge
from hitless.watch.profiles import Profile
from hitless.watch.tracking import Tracker

__all__ = ["Networks", "Watched", "matching", "part_by_routes", "part_by_rules", "pod_networks"]


@dataclass(slots=True)
class Watched:
    """A pod network, with who judges it and who remembers."""

    network: Network
    judge: Judge
    tracker: Tracker
    answer: Answer | None = None
    part: Network | None = None


class Networks:
    """Those that are watched, in the order in which they became known."""

    def __init__(self, profile: Profile, families: Sequence[Family], namespace: Namespace) -> None:
        self._profile, self._families, self._namespace = profile, tuple(families), namespace
        self._watched: dict[Network, Watched] = {}

    def __iter__(self) -> Iterator[Watched]:
        return iter(self._watched.values())

    def find(self, ruleset: Ruleset) -> list[tuple[Network, str]]:
        """Take up the networks that the rules name, in families that have none yet; each with the chain that says."""
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
        """What to tell people when no network is known."""
        chains = [name for table in self._profile.tables for name in table.networks_from]
        return (
            f"no pod network is known, so no gap can be seen: the rules of {', '.join(chains) or 'no chain'} name "
            "none; name one with --network or in the profile"
        )

    def add(self, network: Network) -> None:
        """Watch a network."""
        translators = [(table.name, chain) for table in self._profile.tables for chain in table.networks_from]
        judge = Judge(network, self._packets(network, None), self._pods, translators)
        self._watched[network] = Watched(network, judge, Tracker(network))

    def settle(self, ruleset: Ruleset) -> None:
        """Let the witnesses of networks come from this node's part, as soon as the rules or the routes tell it."""
        for watched in self._watched.values():
            if watched.part is None:
                network = watched.network
                watched.part = part_by_rules(ruleset, self._profile, network) or self._by_routes(network)
                if watched.part is not None:
                    watched.judge.packets = tuple(self._packets(network, watched.part))

    def refresh(self) -> bool:
        """Give interfaces to witnesses that had none (no pod or no uplink was there); whether any got one."""
        found = False
        for watched in self._watched.values():
            if not (watched.judge.packets[0].iif and watched.judge.packets[0].oif):
                before, watched.judge.packets = (
                    watched.judge.packets,
                    tuple(self._packets(watched.network, watched.part)),
                )
                found = found or watched.judge.packets != before
        return found

    def _by_routes(self, network: Network) -> Network | None:
        pods = self._pods()
        return part_by_routes(routes(family_of(network), self._namespace), network, pods) if pods else None

    def _packets(self, network: Network, part: Network | None) -> list[Packet]:
        profile = self._profile
        iif = next(iter(self._pods()), "")
        found: list[Packet] = []
        for mark in profile.marks:
            found += witnesses(
                network,
                part,
                inside=profile.inside,
                protocols=profile.protocols,
                destinations=profile.destinations,
                far_ends=profile.far_ends,
                iif=iif,
                mark=mark,
            )
        oif = profile.uplink or uplink(found[0].dst, self._namespace)
        return [replace(packet, oif=oif) for packet in found]

    def _pods(self) -> list[str]:
        """The pods' interfaces that there are now."""
        return matching(interfaces(self._namespace).values(), self._profile.pod_interfaces)


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The interface names that fit a pattern (``+`` at the end: any continuation), in the order of the patterns."""
    known = list(names)
    found: dict[str, None] = {}
    for pattern in patterns:
        stem = pattern.removesuffix("+")
        for name in known:
            if name == pattern or (stem != pattern and name.startswith(stem)):
                found[name] = None
    return list(found)


def pod_networks(ruleset: Ruleset, profile: Profile) -> dict[Network, str]:
    """The networks whose packets the profile's chains masquerade, each with the chain that says so."""
    found: dict[Network, str] = {}
    for chain in _named(ruleset, profile):
        for rule in chain.rules:
            if any(isinstance(step, Masquerade | Snat) for step in rule.steps):
                for step in rule.steps:
                    if isinstance(step, Source) and not step.negated and step.network.prefixlen:
                        found.setdefault(step.network, chain.name)
    return found


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
    parts = [end for end in ends if end != network and _within(end, network)]
    return parts[0] if network in ends and len(parts) == 1 and len(ends) == 2 else None


def part_by_routes(known: Iterable[tuple[Network, str]], network: Network, pods: Iterable[str]) -> Network | None:
    """The part of ``network`` that a route leads to by a pod's interface: a pod, or a bridge full of them."""
    names = set(pods)
    return next((to for to, name in known if name in names and to != network and _within(to, network)), None)


def _within(part: Network, whole: Network) -> bool:
    return part.version == whole.version and part.prefixlen >= whole.prefixlen and part.network_address in whole
