"""Would a pod's packet get out? The question, put to every committed rule set.

Problem: a chain's text proves nothing, and neither does one packet: a rule may cut off one protocol, one destination,
or one pod only. Promise: several witness packets are asked about and the worst answer counts; a packet needs an
interface to come from, so a "no" that may be about one pod alone is asked again for other pods' interfaces, and counts
only when no pod gets out. What it never does: look at rules itself; that is ``hitless.semantics``. Next stage:
``watching``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from hitless.model.events import State
from hitless.model.families import Network, family_of
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP, Packet
from hitless.model.rules import Ruleset
from hitless.semantics import evaluate

__all__ = ["Answer", "Judge"]

_OTHERS = 8  # other pods that are asked about before a "no" is believed
_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What happens to a pod network's packets; ``chains`` are all that took part in it (nft family, table, chain)."""

    state: State
    reason: str
    chains: frozenset[tuple[str, str, str]]
    about_interface: bool = False


class Judge:
    """Answers for one pod network. ``interfaces`` lists the pods' interfaces that there are now; ``translators`` are
    the chains (table, name) that translate on a healthy node: where one is gone, that is the reason to tell."""

    def __init__(
        self,
        network: Network,
        packets: Sequence[Packet],
        interfaces: Callable[[], Sequence[str]],
        translators: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.network = network
        self.packets = tuple(packets)
        self._interfaces = interfaces
        self._translators = tuple(translators)

    def answer(self, ruleset: Ruleset) -> Answer:
        """The answer of ``ruleset``."""
        answer = self._answer(ruleset)
        if answer.state == "not_carried" and not answer.about_interface:
            gone = self._gone(ruleset)
            if gone:
                return replace(answer, reason=f"there is no chain {gone}, and no other chain translates it")
        return answer

    def _gone(self, ruleset: Ruleset) -> str:
        """A translating chain that its table lacks; empty when all are there, or the table itself is not."""
        families = (family_of(self.network).nft, "inet")
        for name, chain in self._translators:
            tables = [table for table in ruleset.tables if table.name == name and table.family in families]
            if tables and all(chain not in table.chains for table in tables):
                return chain
        return ""

    def _answer(self, ruleset: Ruleset) -> Answer:
        first = _ask(ruleset, self.packets, (self.network,))
        if first.state == "carried" or not first.about_interface:
            return first
        current = self.packets[0].iif
        chains = set(first.chains)  # those of other pods too: a change there may let one of them out
        for name in [name for name in self._interfaces() if name != current][:_OTHERS]:
            packets = tuple(replace(packet, iif=name) for packet in self.packets)
            other = _ask(ruleset, packets, (self.network,))
            if other.state == "carried":
                self.packets = packets
                return other
            chains |= other.chains
        return replace(first, chains=frozenset(chains))


def _ask(ruleset: Ruleset, packets: Iterable[Packet], networks: Sequence[Network]) -> Answer:
    """The worst answer of all packets. After a "no" the others need not be asked: they cannot mend it."""
    chains: set[tuple[str, str, str]] = set()
    worst: Answer | None = None
    for number, packet in enumerate(packets):
        outcome = evaluate(ruleset, packet, unroutable=networks)
        chains |= outcome.chains
        words = outcome.reason
        if number and outcome.state != "carried":
            words = f"{words} ({_NAMES.get(packet.protocol, packet.protocol)} to {packet.dst})"
        about_interface = outcome.dropped is not None or outcome.state == "cannot_tell"
        if worst is None or (worst.state == "carried" and outcome.state != "carried"):
            worst = Answer(outcome.state, words, outcome.chains, about_interface)
        if outcome.state == "not_carried":
            return Answer(outcome.state, words, frozenset(chains), about_interface)
    if worst is None:
        return Answer("cannot_tell", "there is no witness packet", frozenset())
    return replace(worst, chains=frozenset(chains))
