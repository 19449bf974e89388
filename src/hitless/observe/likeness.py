"""Which pods do the rules on their path not distinguish? They share one result.

Problem: a node has up to a hundred pods, and an evaluation takes a millisecond. Promise: two pods have the same key
when every condition in every chain that an evaluated pod's packets passed has the same result for both, for their
address and their interface, for the packets out and for the answers back. Each kind of condition reports by what it
distinguishes pods (``Match.distinguishes_pods``). Pure. Next stage: ``panels``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hitless.model.families import Address, Network
from hitless.model.headers import PacketHeader
from hitless.model.matches import Distinctions
from hitless.model.packets import TCP, UDP
from hitless.model.rules import TOO_MANY, Match, Members, Rule, Ruleset, Table, inner_steps
from hitless.observe.pods import LocalPod
from hitless.semantics import PORTS, ChainName

__all__ = ["Likeness"]

_OF_A_POD = {False: frozenset({"source", "in name"}), True: frozenset({"destination", "out name"})}
_LONG = 64
"""Rules; of shorter chains all are used."""


class Likeness:
    """Learns with every chain that an evaluated pod passed; ``key`` is then finer."""

    def __init__(self, ruleset: Ruleset, towards: Iterable[Address]) -> None:
        """``towards``: the far ends. Of a chain with a rule for each address only those for them are decoded."""
        self._towards = tuple(towards)
        self._tables: dict[tuple[str, str], list[Table]] = {}
        for table in ruleset.tables:
            self._tables.setdefault((table.family, table.name), []).append(table)
        self._chains: set[tuple[bool, ChainName]] = set()
        self._hosts: set[Address] = set()
        self._networks: dict[Network, None] = {}
        self._names: set[str] = set()
        self._stems: dict[str, None] = {}
        self._large: list[Members] = []
        self._long: list[tuple[Table, str, bool]] = []
        self._exact = False

    def key(self, pod: LocalPod) -> object:
        """Equal for pods that nothing known so far distinguishes."""
        address, interface = pod
        if self._exact:
            return pod
        return (
            address if address in self._hosts else None,
            tuple(address in network for network in self._networks),
            tuple(members.covers(address) for members in self._large),
            interface if interface in self._names else bool(interface),
            tuple(interface.startswith(stem) for stem in self._stems),
            tuple(
                tuple(table.specific_rules(chain, header))
                for table, chain, answers in self._long
                for header in self._headers(pod, answers)
            ),
        )

    def _headers(self, pod: LocalPod, answers: bool) -> Iterator[PacketHeader]:
        """Of a pod's packets out, or of the answers to it, as far as pods differ in them."""
        for far_end in self._towards:
            ends = (far_end.packed, pod.address.packed) if answers else (pod.address.packed, far_end.packed)
            for protocol in (TCP, UDP):
                yield PacketHeader(far_end.version, protocol, *ends, *(reversed(PORTS) if answers else PORTS))

    def learn(self, pod: LocalPod, chains: Iterable[ChainName], replies: Iterable[ChainName]) -> bool:
        """Add the conditions of the chains that this pod's packets passed; whether pods that had the same key may now
        have different ones."""
        before = self._size()
        for answers, names in ((True, set(replies)), (False, set(chains))):
            for name in names:
                if (answers, name) not in self._chains:
                    self._chains.add((answers, name))
                    for rule in self._rules(pod, name, answers):
                        for step in inner_steps(rule.steps):
                            if isinstance(step, Match):
                                self._take(step.distinguishes_pods())
        return self._size() != before

    def _size(self) -> tuple[int, ...]:
        parts = (self._hosts, self._networks, self._large, self._names, self._stems, self._long)
        return *map(len, parts), self._exact

    def _rules(self, pod: LocalPod, name: ChainName, answers: bool) -> Iterator[Rule]:
        """The rules that may distinguish pods. Those that a long chain leaves out for this pod, because they match
        another address, are in ``specific_rules``."""
        family, table, chain = name
        for each in self._tables.get((family, table), ()):
            if chain not in each.chains:
                continue
            if each.size(chain) <= _LONG:
                yield from each.chains[chain].rules
                continue
            self._long.append((each, chain, answers))
            for header in self._headers(pod, answers):
                met = each.rules_for(chain, header)
                self._exact = self._exact or met is TOO_MANY
                yield from (rule for _, rule in met)
            # a rule that was read for a packet's own address or interface may read otherwise for another pod
            self._exact = self._exact or bool(each.header_parts_used(chain) & _OF_A_POD[answers])

    def _take(self, by: Distinctions) -> None:
        for network in by.networks:
            self._network(network)
        for name in by.interfaces:
            if name.endswith("+"):
                self._stems[name[:-1]] = None
            else:
                self._names.add(name)
        self._large += [members for members in by.members if members not in self._large]
        self._exact |= by.alone

    def _network(self, network: Network) -> None:
        if network.prefixlen == network.max_prefixlen:
            self._hosts.add(network.network_address)
        else:
            self._networks[network] = None
