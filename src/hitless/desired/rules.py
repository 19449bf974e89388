"""flannel's masquerade and forward rules as values.

Problem: flannel has these rules twice (IPv4, IPv6) and once more for nftables, where two of them are wrong. Promise:
one list, with the family as a parameter, for all three backends. In native nftables this fixes flannel's two defects:
its mark rule compares the whole mark with 0x4000 instead of the one bit, and its fourth rule (``saddr != SUBNET daddr
NETWORK return``) shadows the last one, which can then never match. Nothing is read from the kernel. Next stage:
``hitless.plan``.
"""

from __future__ import annotations

from hitless.model.families import Backend, Network, family_of
from hitless.model.rules import Accept, Comment, Destination, Jump, Mark, Masquerade, Return, Rule, Source, Step
from hitless.model.state import Holding, NodeState, Place, Purpose
from hitless.sources.snapshot import FamilyNetworks, SourceSnapshot

__all__ = ["KUBE_PROXY_MARK", "desired_state", "forward_rules", "jump_rule", "masquerade_rules"]

KUBE_PROXY_MARK = 0x4000
"""The bit by which kube-proxy asks for masquerading in KUBE-POSTROUTING (kubernetes: --iptables-masquerade-bit 14)."""


def desired_state(snapshot: SourceSnapshot, backend: Backend) -> NodeState:
    """The rules at every place that the configuration enables; other places are not named, and so not touched."""
    places: dict[Place, Holding] = {}
    for family, networks in snapshot.networks.items():
        if snapshot.masquerade:
            place = Place(backend, family, Purpose.MASQUERADE)
            rules = masquerade_rules(networks, random_fully=snapshot.random_fully)
            places[place] = _holding(place, rules, (networks.subnet, *networks.draining))
        if snapshot.forward:
            place = Place(backend, family, Purpose.FORWARD)
            places[place] = _holding(place, forward_rules(networks), (networks.subnet, *networks.draining))
    return NodeState(places)


def _holding(place: Place, rules: tuple[tuple[Step, ...], ...], pods: tuple[Network, ...]) -> Holding:
    names = place.names
    if place.backend.native:  # flannel's native rules carry no comments, and the table is all ours
        return Holding((), tuple(Rule(steps) for steps in rules), names.hook, pods=pods)
    chain = tuple(Rule((*steps[:-1], Comment(names.comment), steps[-1])) for steps in rules)
    return Holding((jump_rule(place),), chain, pods=pods)


def jump_rule(place: Place) -> Rule:
    """The rule that leads from the base chain into ours."""
    return Rule((Comment(place.names.comment), Jump(place.names.chain)))


def masquerade_rules(networks: FamilyNetworks, *, random_fully: bool) -> tuple[tuple[Step, ...], ...]:
    """flannel's six rules, in its order, without comments; then what pods in draining networks need."""
    network, subnet = networks.network, networks.subnet
    masquerade = Masquerade(random_fully=random_fully)
    multicast = _multicast(network)
    return (
        # kube-proxy masquerades what it marked; twice is a checksum bug on some kernels
        (Mark(KUBE_PROXY_MARK, KUBE_PROXY_MARK), Return()),
        # within the pods' network addresses stay as they are
        (Source(subnet), Destination(network), Return()),
        (Source(network), Destination(subnet), Return()),
        # from outside directly to a pod of this node: the pod sees the client's address
        (Source(network, negated=True), Destination(subnet), Return()),
        # the egress path
        (Source(network), Destination(multicast, negated=True), masquerade),
        # the host itself towards pods of other nodes: the answer must come back through the overlay
        (Source(network, negated=True), Destination(network), masquerade),
        *(rule for old in networks.draining for rule in _draining(old, multicast, masquerade)),
    )


def _draining(old: Network, multicast: Network, masquerade: Masquerade) -> tuple[tuple[Step, ...], ...]:
    """Pods that still live in a network of an earlier configuration keep their egress until the last one is gone."""
    return (
        (Source(old), Destination(old), Return()),
        (Source(old), Destination(multicast, negated=True), masquerade),
    )


def forward_rules(networks: FamilyNetworks) -> tuple[tuple[Step, ...], ...]:
    """Accept forwarding from and to pods, whatever the FORWARD policy is."""
    every = (networks.network, *networks.draining)
    return tuple(rule for network in every for rule in ((Source(network), Accept()), (Destination(network), Accept())))


def _multicast(network: Network) -> Network:
    return family_of(network).multicast
