"""What a node has, or should have: one type for *desired* and *observed*.

Problem: equality and difference mean something only between values of one type. Promise: a ``NodeState`` maps each
``Place`` (backend, family, purpose) to what stands there: our chain, and the base chain that leads into it. A desired
state names only what is ours; an observed one carries the neighbours' rules too, because a rule of theirs can stand in
the way. ``own()`` drops the neighbours, so ``observed.own() == desired`` is the question "is it right?". Links, routes
and neighbours will join as further fields. Next stage: ``hitless.plan``.
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
    """What a chain of ours is for."""

    MASQUERADE = "masquerade"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class Names:
    """Where a purpose lives: flannel's names, which are the mark of ownership."""

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
    """Flannel's names at a place; in native nftables the chain is itself a base chain (``base`` is empty)."""
    if place.backend.native:
        return _NFTABLES[place.backend, place.family, place.purpose]
    return _IPTABLES[place.purpose]


@dataclass(frozen=True, slots=True)
class Holding:
    """What stands at a place.

    ``entry``: the base chain's rules (desired: the one jump; native nftables: empty). ``chain``: our chain's rules,
    ``None`` where the chain is not there. ``hook``: where a native base chain is attached. ``objects``: how many
    chains, sets and other objects the native table holds in all. ``pods``: whose egress depends on this place (desired
    states say it). ``policy``: the iptables base chain's, what happens to what no rule took.
    """

    entry: tuple[Rule, ...] = ()
    chain: tuple[Rule, ...] | None = None
    hook: Hook | None = None
    objects: int = field(default=0, compare=False)
    pods: tuple[Network, ...] = field(default=(), compare=False)
    policy: str = field(default="accept", compare=False)

    def owned(self, place: Place) -> Holding:
        """The part of this that is ours: rules with our comment or a jump to our chain; our chain whole.

        Foreign rules inside our chain are dropped as well: they are their owner's, wherever they stand.
        """
        chain = None if self.chain is None else tuple(rule for rule in self.chain if is_owned(rule, place))
        entry = tuple(rule for rule in self.entry if is_owned(rule, place))
        return replace(self, entry=entry, chain=chain)


_NATIVE = (Mark, Source, Destination)
_MASQUERADED_ELSEWHERE = 0x4000  # kube-proxy's bit, of which flannel's first rule speaks


def is_owned(rule: Rule, place: Place) -> bool:
    """Whether a rule carries our mark.

    iptables: flannel's comment, or a jump to flannel's chain; a RETURN in front of the forward rules is nobody's of
    flannel, whatever it says (no version wrote one), and may shelter pods from a refusal behind it. Native nftables:
    the table is flannel's, but its rules carry no mark at all, and other people add theirs: a rule is ours when it has
    the form of one that flannel or we ever wrote, for whatever network; anything else is somebody's addition.
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
    """The forms: a network's accept; the mark's return; returns between a network and its own part; masquerading from a
    network to all but multicast, and to a network from all but it. An exemption of somebody's leads out of the pods'
    networks, and is none of these."""
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
    """Everything at this node that is an agent's business. A place that is not named is not managed."""

    places: Mapping[Place, Holding] = field(default_factory=dict)

    def own(self) -> NodeState:
        """This state without the neighbours' rules."""
        return NodeState({place: holding.owned(place) for place, holding in self.places.items()})
