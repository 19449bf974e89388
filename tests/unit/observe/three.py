"""One rule set, and what each of the three observers reports: the watch, the agent and the guard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from types import MappingProxyType

from tests.unit.guard.flannels import NETWORK, SUBNET, damaged, random_primary
from tests.unit.observe.foreign_tables import foreign_table
from tests.unit.observe.shared_answers import Answers
from tests.unit.semantics.random_rules import POD_IN, UPLINK, random_iptables, random_nft

from hitless.agent.egress import Egress
from hitless.agent.ports import AroundPort
from hitless.guard.gaps import Asker
from hitless.guard.places import Around
from hitless.guard.standby_rules import WitnessPlace
from hitless.model.families import Family, Network
from hitless.model.links import Device
from hitless.model.rules import AnyOf, ConnMark, Element, Goto, Jump, Mark, Ruleset, SetMark, SetMember
from hitless.model.standby import without_guard
from hitless.observe import Asking, Judge, LocalPod, NodeView, Witnesses, find
from hitless.sources import FamilyNetworks
from hitless.watch.profiles import load

_profile = cache(load)
STATES = ("carried", "cannot_tell", "not_carried")


@dataclass
class Node:
    """A node with given pods; packets leave by ``way``."""

    pods: tuple[LocalPod, ...]
    way: str

    def witnesses(self, asking: Asking | WitnessPlace) -> Witnesses:
        """For the guard's places as for the agent's and the watch's questions."""
        if isinstance(asking, WitnessPlace):
            asking = Asking(asking.network, asking.subnet)
        links = {self.way: Device(self.way, "", carrier=True)} if self.way else {}
        found = find(replace(asking, uplink=self.way), NodeView(links), lambda *_: "")
        return replace(found, pods=self.pods) if self.pods else found

    def uplink(self, family: Family) -> str:
        return self.way

    def look(self, now: float) -> bool:
        return False

    def close(self) -> None:
        pass


def watch_says(
    ruleset: Ruleset, network: Network, subnet: Network | None, node: Node, profile: str = "flannel"
) -> tuple[str, str]:
    """What ``watch --once`` writes."""
    asked = _profile(profile)
    translators = [(table.name, chain) for table in asked.tables for chain in table.networks_from]
    asking = Asking(
        network, subnet, asked.inside, asked.protocols, asked.destinations, asked.far_ends, asked.marks,
        asked.pod_interfaces,
    )  # fmt: skip
    poll = Judge(network, node.witnesses(asking), translators).answer(ruleset)
    return poll.state, poll.reason


def agent_says(ruleset: Ruleset, network: Network, subnet: Network | None, around: AroundPort) -> tuple[str, str]:
    """What /readyz is made of."""
    told = Egress().ask(ruleset, FamilyNetworks(network, subnet or network), around, masquerade=True)
    return told.state, told.why


def guard_says(ruleset: Ruleset, network: Network, subnet: Network | None, around: Around) -> tuple[str, str]:
    """What its gaps of both kinds come to."""
    others, asker, places = without_guard(ruleset), Asker(), [WitnessPlace(network, subnet)]
    fates = [asker.egress(others, places, around), asker.forward(others, places, around)]
    why = "; ".join(fate.reason for fate in fates if fate.reason)
    if any(fate.cut for fate in fates):
        return "not_carried", why
    return ("cannot_tell" if any(fate.doubtful for fate in fates) else "carried"), why


Says = Callable[[Ruleset, Network, Network | None, Node], tuple[str, str]]
OBSERVERS: Mapping[str, Says] = MappingProxyType({"watch": watch_says, "agent": agent_says, "guard": guard_says})
"""State and reason of each."""


def random_rules(random: Random, family: Family) -> Ruleset:
    """Flannel's rules, whole or damaged, among random rules of others, in one backend or in several."""
    primary = random_primary(random, family)
    if random.random() < 0.3:
        primary = damaged(random, primary)
    tables = list(primary.tables)
    names = {table.name for table in tables}
    more = random_iptables(random, family) if random.random() < 0.5 else random_nft(random, family)
    chosen = [table for table in more if table.name not in names and random.random() < 0.5]
    if random.random() < 0.4:
        chosen.append(foreign_table(random, family))
    return Ruleset((*tables, *chosen))


def random_node(random: Random, family: Family) -> Node:
    """Some pods or none, each with a link that is known or not, and an uplink that is known or not."""
    home = SUBNET[family]
    pods = tuple(
        LocalPod(home[number], random.choice((POD_IN, POD_IN, "lan0", "")))
        for number in random.sample((10, 11, 0x20, 77), random.choice((0, 1, 1, 2, 3)))
    )
    return Node(pods, random.choice((UPLINK, UPLINK, UPLINK, "")))


def disagreements(
    seed: str,
    count: int,
    tally: Counter[str],
    observers: Mapping[str, Says] = OBSERVERS,
    *,
    checked: int = 50,
) -> Iterator[str]:
    """Evaluate so many random rule sets; those on which the observers disagree, as texts. Each one in ``checked`` is
    evaluated a second time without ``Answers``, by each observer separately: the results must be the same."""
    answers = Answers()
    for number in range(count):
        random = Random(f"{seed} {number}")
        family = random.choice(list(Family))
        ruleset, node = random_rules(random, family), random_node(random, family)
        asked = ruleset, NETWORK[family], SUBNET[family], node
        answers.begin(ruleset)
        with answers.shared():
            states = {name: says(*asked)[0] for name, says in observers.items()}
        tally["rule sets"] += 1
        tally[states["watch"]] += 1
        tally.update(kinds(ruleset, family, node))
        answers.count(tally)
        again = number % checked == 0
        tally["asked again, each observer by itself"] += again
        if len(set(states.values())) > 1 or again:
            told = {name: says(*asked) for name, says in observers.items()}
            alone = {name: state for name, (state, _) in told.items()}
            if len(set(alone.values())) > 1 or alone != states:
                tally[" ".join(f"{name}={state}" for name, state in alone.items())] += 1
                yield f"{seed} {number}: {told}" + (f", together {states}" if alone != states else "")


_STEPS = {SetMember: "sets", AnyOf: "sets", Element: "sets", Mark: "marks", SetMark: "marks", ConnMark: "marks",
          Jump: "jumps", Goto: "jumps"}  # fmt: skip


def kinds(ruleset: Ruleset, family: Family, node: Node) -> set[str]:
    """What there is in a rule set, and on its node."""
    found = {family.value, "no pod" if not node.pods else "one pod" if len(node.pods) == 1 else "pods"}
    found |= set() if node.way else {"no uplink"}
    for table in ruleset.tables:
        found.add("iptables-legacy" if table.legacy else "iptables-nft" if table.iptables else "nftables")
        found.add("inet tables" if table.family == "inet" else f"{table.family} tables")
        found |= {"foreign tables"} if table.name == "firewall" else set()
        for chain in table.chains.values():
            if chain.hook is not None and chain.hook.policy == "drop":
                found.add("policy drop")
            found |= {_STEPS[type(step)] for rule in chain.rules for step in rule.steps if type(step) in _STEPS}
    return found


def rate(tally: Counter[str], states: Sequence[str] = STATES) -> dict[str, float]:
    """The share of each answer: where one is missing, agreement proves nothing."""
    return {state: tally[state] / max(1, tally["rule sets"]) for state in states}
