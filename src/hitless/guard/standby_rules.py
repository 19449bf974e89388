"""What the primary means: a standby for one family, learned from the rules that are in the kernel.

Problem: the guard knows nothing but the rules; it must find the primary's decision among all others', and see which
networks' egress it carries. Promise: ``learn`` is a pure function of a rule set; its ``StandbyRules`` holds exact
copies of the NAT base chains that lead to the primary's chains, and the pod networks that they carry, each proven by
evaluating witness packets on the copy itself. Base chains of other programs need no copy: the kernel calls every base
chain until one translates, so they go on working. ``Unclear`` when the rules have no exact copy. Next stage:
``deciding``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hitless.guard import images
from hitless.guard.primaries import Primary
from hitless.guard.rule_copy import LeftOut, Unclear, Unread, copy, disturbance, tested_bits
from hitless.model.families import Address, Family, Network, family_of, within
from hitless.model.rules import UNREAD, Chain, Masquerade, Return, Rule, Ruleset, SetMember, Snat, Source, Table
from hitless.model.standby import TABLE, copied
from hitless.semantics import evaluate, unused_addresses, witnesses

__all__ = ["BEHIND", "DESTINATIONS", "StandbyRules", "WitnessPlace", "learn", "standby_of"]

BEHIND = 1
"""How far behind its original a copy's priority is: as near as possible, so that no other base chain (Felix's and
firewalld's are at srcnat + 10) is called in between and translates flows that the whole primary would have
translated first. The nat core calls all base chains from its own hook at 100, in the order of their priorities."""

DESTINATIONS = 2
"""How many far ends the witnesses of a place have."""

_MOST_RULES = 32768
"""Behind one base chain that translates."""

_MOST_MEMBERS = 4096  # a set with more elements is no list of pod networks


@dataclass(frozen=True, slots=True)
class WitnessPlace:
    """Where a witness lives: a pod ``network``, and this node's part of it where the rules show it."""

    network: Network
    subnet: Network | None = None


@dataclass(frozen=True, slots=True)
class StandbyRules:
    """What stands behind the primary: ``chains`` in the guard's names; ``places`` whose egress they carry.

    ``left_out``: translations of the primary that have no exact copy, as texts for users. ``doubtful``: pod networks of
    which it is unknown whether these chains carry them.
    """

    family: Family
    chains: tuple[Chain, ...]
    places: tuple[WitnessPlace, ...] = ()
    left_out: tuple[LeftOut, ...] = field(default=(), compare=False)
    doubtful: tuple[Network, ...] = field(default=(), compare=False)

    @property
    def networks(self) -> tuple[Network, ...]:
        """The pod networks whose egress it carries."""
        return tuple(place.network for place in self.places)

    def ruleset(self) -> Ruleset:
        """As the kernel will hold it, for the evaluator."""
        return Ruleset((Table(self.family.nft, TABLE, {chain.name: chain for chain in self.chains}),))


def learn(
    ruleset: Ruleset,
    family: Family,
    primary: Primary,
    *,
    networks: Iterable[Network] = (),
    uplink: str = "",
) -> StandbyRules:
    """The standby for what these rules do now; without places when they carry no pod network. Raises ``Unclear``.

    ``networks``: pod networks that users named, beside those that the rules name. ``uplink`` empty: not known.
    """
    bases = list(_bases(ruleset, family))
    chosen = [(table, base) for table, base in bases if _leads(table, base.name, primary)]
    chains: list[Chain] = []
    left_out: list[LeftOut] = []
    bits = 0
    for number, (table, base) in enumerate(chosen):
        prefix = copied(table.name)[table.legacy]
        priority = (base.hook.priority if base.hook is not None else 0) + BEHIND + number
        part = copy(table, base, prefix, priority, 4 if family is Family.IPV4 else 6)
        bits |= tested_bits(table, base.name)
        chains += part.chains
        left_out += part.left_out
    for table, base in bases:
        others = [other for other in chosen if other[0] is not table or other[1] is not base]
        if others and (problem := disturbance(table, base.name, bits)):
            raise Unclear(f"{problem}, which the primary tests")
    places = dict.fromkeys(_places(chosen, primary))
    for network in (*networks, *primary.networks):
        if family_of(network) is family and network not in {place.network for place in places}:
            places[WitnessPlace(network)] = None
    return standby_of(family, tuple(chains), places, uplink=uplink, left_out=tuple(left_out))


def standby_of(
    family: Family,
    chains: tuple[Chain, ...],
    places: Iterable[WitnessPlace],
    *,
    uplink: str = "",
    left_out: tuple[LeftOut, ...] = (),
) -> StandbyRules:
    """The standby of these chains with those of ``places`` that it carries."""
    chains = images.canonical(chains, family)
    candidate = StandbyRules(family, chains, (), left_out)
    rules = candidate.ruleset()
    carrying = {place: _carries(rules, place, uplink) for place in places}
    carried = tuple(place for place, carries in carrying.items() if carries)
    return StandbyRules(
        family, chains, carried, left_out, tuple(p.network for p, carries in carrying.items() if carries is None)
    )


def _carries(rules: Ruleset, place: WitnessPlace, uplink: str) -> bool | None:
    """Whether the rules translate a pod of the place: one of several addresses at least, as a rule may exempt any."""
    answers = []
    for source in unused_addresses(place.subnet or place.network):
        answers.append(_carries_one(rules, place, source, uplink))
        if answers[-1]:
            return True
    return None if None in answers else False


def _carries_one(rules: Ruleset, place: WitnessPlace, source: Address, uplink: str) -> bool | None:
    """For each protocol, to one of the destinations at least: a rule may exempt any one of them. ``None``: unknown."""
    states_of: dict[int, set[str]] = {}
    for packet in witnesses(place.network, place.subnet, oif=uplink, destinations=DESTINATIONS, source=source):
        states_of.setdefault(packet.protocol, set()).add(evaluate(rules, packet, ("postrouting",)).state)
    lost = [states for states in states_of.values() if "carried" not in states]
    if any(states == {"not_carried"} for states in lost):
        return False
    return None if lost else True


def _bases(ruleset: Ruleset, family: Family) -> Iterator[tuple[Table, Chain]]:
    for table in ruleset.tables:
        if table.family not in (family.nft, "inet") or table.name == TABLE:
            continue
        for name, hook in table.hooks():
            if hook.type == "nat" and hook.hook == "postrouting":
                number = sum(map(table.size, table.reachable(name)))
                if number > _MOST_RULES:
                    raise Unclear(f"{table.name} {name} leads to {number} rules, more than can be copied")
                chain = table.chains[name]
                if chain.rules == UNREAD:
                    raise Unread("the rules could not be read, as others change them all the time")
                yield table, chain


def _leads(table: Table, base: str, primary: Primary) -> bool:
    return not table.reachable(base).isdisjoint(_named(table, primary))


def _named(table: Table, primary: Primary) -> tuple[str, ...]:
    return tuple(chain for name, chain in primary.chains if name == table.name)


def _closure(table: Table, name: str) -> Iterator[Chain]:
    return (table.chains[each] for each in table.reachable(name))


def _places(chosen: list[tuple[Table, Chain]], primary: Primary) -> Iterator[WitnessPlace]:
    """The networks that the primary's own chains translate as sources, the node's part where a RETURN names it."""
    for table, _base in chosen:
        for name in _named(table, primary):
            rules = [rule for chain in _closure(table, name) for rule in chain.rules]
            translated = _sources(rules, (Masquerade, Snat))
            returned = _sources(rules, (Return,))
            for network in translated:
                parts = [part for part in returned if part.prefixlen > network.prefixlen and within(part, network)]
                yield WitnessPlace(network, parts[0] if len(parts) == 1 else None)


def _sources(rules: Iterable[Rule], verdicts: tuple[type, ...]) -> list[Network]:
    found: dict[Network, None] = {}
    for rule in rules:
        if any(isinstance(step, verdicts) for step in rule.steps):
            for step in rule.steps:
                if isinstance(step, Source) and not step.negated and step.network.prefixlen:
                    found[step.network] = None
                elif isinstance(step, SetMember) and step.direction == "src" and not step.negated:
                    found |= dict.fromkeys(each for each in step.networks(_MOST_MEMBERS) or () if each.prefixlen)
    return list(found)
