"""The rules of a node that the agent manages: one type for *desired* and *observed*.

Problem: equality and difference are meaningful only between values of one type. Promise: a ``NodeState`` maps each
``Place`` (backend, family, purpose) to its contents: our chain, and the base chain that leads to it. A desired state
contains only our rules; an observed one also foreign rules, because they can take effect first. ``own()`` drops foreign
rules, so that ``observed.own() == desired`` means that nothing is to be changed. Next stage: ``hitless.plan``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from hitless.model.families import Backend, Family, Network, family_of
from hitless.model.rules import (
    Accept,
    Comment,
    Destination,
    Goto,
    Hook,
    Jump,
    Mark,
    Masquerade,
    Return,
    Rule,
    Source,
)

__all__ = ["Holding", "Names", "NodeState", "Place", "Purpose", "is_owned", "names_of"]


class Purpose(StrEnum):
    """The purpose of one of our chains."""

    MASQUERADE = "masquerade"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class Names:
    """The names for a purpose: flannel's, which are the mark of ownership."""

    table: str
    base: str
    chain: str
    comment: str
    hook: Hook | None = None


_IPTABLES = {
    Purpose.MASQUERADE: Names("nat", "POSTROUTING", "FLANNEL-POSTRTG", "flanneld masq"),
    Purpose.FORWARD: Names("filter", "FORWARD", "FLANNEL-FWD", "flanneld forward"),
}
_NATIVE_CHAINS = (
    (Purpose.MASQUERADE, "postrtg", "flanneld masq", Hook("nat", "postrouting", 100)),
    (Purpose.FORWARD, "forward", "flanneld forward", Hook("filter", "forward", 0)),
)
_NFTABLES = {
    (backend, family, purpose): Names(backend.table(family), "", chain, comment, hook)
    for backend in Backend
    if backend.native
    for family in Family
    for purpose, chain, comment, hook in _NATIVE_CHAINS
}


@dataclass(frozen=True, slots=True)
class Place:
    """One chain of ours: for a purpose, of a family, in a backend."""

    backend: Backend
    family: Family
    purpose: Purpose

    @property
    def names(self) -> Names:
        """Table, base chain, own chain, comment."""
        return names_of(self)

    def __str__(self) -> str:
        return f"{self.backend.value} {self.family.value} {self.purpose.value}"


def names_of(place: Place) -> Names:
    """Flannel's names for a place; in native nftables the chain is itself a base chain (``base`` is empty)."""
    if place.backend.native:
        return _NFTABLES[place.backend, place.family, place.purpose]
    return _IPTABLES[place.purpose]


@dataclass(frozen=True, slots=True)
class Holding:
    """The contents of a place.

    ``entry``: the base chain's rules (desired: the one jump; native nftables: empty). ``chain``: our chain's rules,
    ``None`` if the chain does not exist. ``hook``: where a native base chain is attached. ``objects``: how many chains,
    sets and other objects the native table has. ``pods``: the networks whose egress depends on this place (of desired
    states). ``policy``: that of the iptables base chain.
    """

    entry: tuple[Rule, ...] = ()
    chain: tuple[Rule, ...] | None = None
    hook: Hook | None = None
    objects: int = field(default=0, compare=False)
    pods: tuple[Network, ...] = field(default=(), compare=False)
    policy: str = field(default="accept", compare=False)

    def owned(self, place: Place) -> Holding:
        """Only what is ours: rules with our comment or a jump to our chain; our chain.

        Foreign rules inside our chain are dropped as well: they belong to their owner, wherever they are.
        """
        chain = None if self.chain is None else tuple(rule for rule in self.chain if is_owned(rule, place))
        entry = tuple(rule for rule in self.entry if is_owned(rule, place))
        return replace(self, entry=entry, chain=chain)


_NATIVE = (Mark, Source, Destination)
_MASQUERADED_ELSEWHERE = 0x4000  # kube-proxy's bit, of which flannel's first rule speaks


def is_owned(rule: Rule, place: Place) -> bool:
    """Whether a rule is one of ours.

    iptables: it has flannel's comment, or jumps to flannel's chain. A RETURN in front of the forward rules is never
    flannel's, whatever its comment (no version wrote one), and may protect pods from a later rule. Native nftables: the
    table is flannel's, but its rules carry no mark, and users add theirs: a rule is ours if it has the form of one that
    flannel or we ever wrote, for any network.
    """
    if place.backend.native:
        return _of_our_form(rule, place.purpose)
    if place.purpose is Purpose.FORWARD and rule.steps and isinstance(rule.steps[-1], Return):
        return False
    names = place.names
    for step in rule.steps:
        if isinstance(step, Comment):
            if step.text == names.comment:
                return True
        elif isinstance(step, (Jump, Goto)) and step.chain == names.chain:
            return True
    return False


def _of_our_form(rule: Rule, purpose: Purpose) -> bool:
    """The forms: a network's accept; the return for the mark; returns between a network and its own part; masquerading
    from a network to everything but multicast, and to a network from everything outside it. An exemption added by a
    user leads out of the pods' networks, and has none of these forms."""
    if not rule.steps or not all(isinstance(step, _NATIVE) for step in rule.steps[:-1]):
        return False
    conditions, action = rule.steps[:-1], rule.steps[-1]
    if purpose is Purpose.FORWARD:
        match conditions:
            case (Source(network, False) | Destination(network, False),):
                return isinstance(action, Accept) and network.prefixlen < network.max_prefixlen
        return False
    if isinstance(action, Return) and len(conditions) == 1:
        return isinstance(conditions[0], Mark) and conditions[0].value == _MASQUERADED_ELSEWHERE
    source = next((step for step in conditions if isinstance(step, Source)), None)
    destination = next((step for step in conditions if isinstance(step, Destination)), None)
    if source is None or destination is None or len(conditions) != 2:
        return False
    if isinstance(action, Return):
        return not destination.negated and source.network.overlaps(destination.network)
    if not isinstance(action, Masquerade):
        return False
    if source.negated:
        return not destination.negated and source.network == destination.network
    return destination.negated and destination.network == family_of(source.network).multicast


@dataclass(frozen=True, slots=True)
class NodeState:
    """Everything on this node that an agent manages. A place without an entry is not managed."""

    places: Mapping[Place, Holding] = field(default_factory=dict)

    def own(self) -> NodeState:
        """This state without foreign rules."""
        return NodeState({place: holding.owned(place) for place, holding in self.places.items()})
