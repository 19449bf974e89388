"""Why: one sentence for users, from the path that was walked.

Problem: "not carried" alone sends an operator searching through hundreds of rules. Promise: the sentence names the
chain and the rule that decided, or what is missing where the translation used to be (an empty chain, a jump that is
gone). It is an interpretation of the path, chosen for usefulness: first an early end of the base chain, then a
translating chain that no jump leads to, a rule that returned the packet, an empty chain, and last that no rule matched.
Some chains are empty on every healthy node (Felix has several), so an empty chain is the cause only where there is no
other. The reason never changes the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.model import notation
from hitless.model.families import Family
from hitless.model.matches.base import span
from hitless.model.packets import Packet
from hitless.model.rules import (
    Chain,
    Destination,
    Masquerade,
    Rule,
    Ruleset,
    Snat,
    Source,
    Step,
    Table,
    inner_steps,
)
from hitless.semantics.outcome import Ending, State, Visit

__all__ = ["Reasons"]

_MOST_CHAINS = 2000
_LONG = 1024  # rules: longer chains are not read for a reason
_MOST_CAUSES = 3  # different causes in one sentence
_IPTABLES = "nat"
"""The table that users mean when they name none: iptables has one for translations."""
_LIKELY = ("post", "masq", "snat", "nat-outgoing", "flannel")
"""Parts of the names of chains that translate sources, used where there are too many chains to read each."""


class Reasons:
    """Sentences about one packet. ``expected``: the chains (table, name) that translate it on a healthy node."""

    def __init__(self, ruleset: Ruleset, packet: Packet, expected: Sequence[tuple[str, str]] = ()) -> None:
        self._ruleset, self._packet, self._expected = ruleset, packet, expected

    def certain(self, endings: Sequence[Ending]) -> str:
        """For an answer that is certain; which of several rules translates may still be open."""
        translated = [ending for ending in endings if ending.kind == "translated"]
        if translated:
            return self._translated(translated)
        first = next((ending for ending in endings if ending.kind == "dropped"), endings[0])
        different = dict.fromkeys(self._lost(ending) for ending in (first, *endings))
        return " or ".join(list(different)[:_MOST_CAUSES])

    def answer(self, endings: Sequence[Ending], state: State, shown: Ending, splitter: Visit | None) -> str:
        """For the reply to a packet that was carried."""
        if state == "carried":
            return "answers arrive"
        if state == "cannot_tell":
            return f"whether answers come back: {self.doubt(shown, splitter)}"
        return " or ".join(list(dict.fromkeys(self._answer_lost(ending) for ending in endings))[:_MOST_CAUSES])

    def _answer_lost(self, ending: Ending) -> str:
        for visit in ending.path:
            if visit.kind == "notrack":
                where = f"{visit.family} {visit.table}"
                return f"answers are lost: {_rule(visit)} ({where}) hides them from conntrack"
        visit = ending.path[-1]
        where = f"{visit.family} {visit.table}"
        if visit.kind == "zone":
            return f"answers are lost: {_rule(visit)} ({where}) puts one direction into a conntrack zone of its own"
        if visit.kind == "policy drop":
            return f"answers are dropped by the policy of {visit.chain} ({where})"
        verb = "rejected" if visit.kind == "reject" else "dropped"
        return f"answers are {verb} by {_rule(visit)} ({where}){self._with_conditions(visit)}"

    def doubt(self, ending: Ending, splitter: Visit | None) -> str:
        """For an answer that is open; ``splitter``: the visit with the decisive condition."""
        if splitter is not None:
            step = splitter.step
            text = splitter.text if step is None else self._condition(splitter, step) or self._whole(splitter)
            return f"{_rule(splitter)} depends on what is not known here: {text}"
        for visit in ending.path:
            if visit.kind == "opaque":
                return f"{_rule(visit)} does what is not understood here: {visit.text}"
            if visit.kind == "zone" and visit is ending.path[-1]:
                return f"{_rule(visit)} chooses a conntrack zone that is not known here, or one for a single direction"
            if visit.kind == "dnat":
                return f"{_rule(visit)} sends it on to {visit.text or 'elsewhere'}{self._with_conditions(visit)}"
        for visit in ending.path:
            if visit.kind == "unknown" and visit.step is not None:
                return f"{_rule(visit)} depends on what is not known here: {self._condition(visit, visit.step)}"
        if any(visit.kind == "snat" for visit in ending.path):
            return _to_a_pod(ending).replace("an address", "maybe an address")
        return "several base chains of the same priority disagree"

    def _lost(self, ending: Ending) -> str:
        if ending.kind == "dropped":
            return self._dropped(ending.path[-1])
        if ending.translation is not None:
            return _to_a_pod(ending)
        return self._untranslated(ending.path)

    def _names(self, number: int) -> str | None:
        return None if self._ruleset.node is None else self._ruleset.node.set_name(number)

    def _condition(self, visit: Visit, step: Step) -> str:
        return notation.condition(step, iptables=visit.iptables, names=self._names, of=visit.rule)

    def _whole(self, visit: Visit) -> str:
        """The whole rule: a condition that its expressions imply has no text of its own."""
        return "" if visit.rule is None else notation.rule(visit.rule, iptables=visit.iptables, names=self._names)

    def _with_conditions(self, visit: Visit) -> str:
        if visit.rule is None:
            return ""
        text = notation.conditions(visit.rule, iptables=visit.iptables, names=self._names)
        return f" ({text})" if text else ""

    def _translated(self, endings: Sequence[Ending]) -> str:
        places: dict[str, Visit] = {}
        for ending in endings:
            visit = next(visit for visit in ending.path if visit.kind in ("masquerade", "snat"))
            # a standby's chain may have the name of the agent's chain that it replaces: the table distinguishes them
            where = "" if visit.table == _IPTABLES else f" ({visit.family} {visit.table})"
            places.setdefault(f"{_rule(visit)}{where}", visit)
        verb = "masquerades" if all(visit.kind == "masquerade" for visit in places.values()) else "translates"
        named = " or ".join(places)
        only = self._with_conditions(next(iter(places.values()))) if len(places) == 1 else ""
        return f"{named} {verb} it{only}"

    def _dropped(self, visit: Visit) -> str:
        where = f"{visit.family} {visit.table}"
        if visit.kind == "policy drop":
            return f"the policy of {visit.chain} ({where}) drops it"
        verb = "rejects" if visit.kind == "reject" else "drops"
        return f"{_rule(visit)} ({where}) {verb} it{self._with_conditions(visit)}"

    # --- why there is no translation

    def _untranslated(self, path: Sequence[Visit]) -> str:
        packet = self._packet
        families = (packet.family.nft, "inet")
        bases = [
            (table, name)
            for table in self._ruleset.tables
            if table.family in families
            for name, hook in table.hooks()
            if hook.type == "nat" and hook.hook == "postrouting"
        ]
        if not bases:
            return f"no NAT chain stands at postrouting for {'IPv4' if packet.family is Family.IPV4 else 'IPv6'}"
        for visit in path:
            if visit.kind == "notrack":
                where = f"{visit.family} {visit.table}"
                return f"{_rule(visit)} ({where}) hides it from conntrack, so that no NAT chain is asked"
        if packet.state in ("INVALID", "UNTRACKED"):
            return f"{packet.state} packets are never translated"
        if not any(table.size(name) for table, name in bases):
            return f"chain {bases[0][1]} is empty"
        walked = _nat_part(path, {(*_key(table), name) for table, name in bases})
        return (
            self._ended_early(walked, {(*_key(table), name) for table, name in bases})
            or self._of_expected(walked, bases)
            or _unreached(walked, bases)
            or self._turned_back(walked)
            or _empty(walked, bases)
            or self._unmatched(walked, bases)
            or f"no rule of {', '.join(dict.fromkeys(name for _, name in bases))} translates {packet.src}"
        )

    def _ended_early(self, walked: Iterable[Visit], bases: set[_ChainKey]) -> str | None:
        for visit in walked:
            in_base = (*visit.place[:3], visit.chain) in bases
            if visit.kind == "accept" or (visit.kind == "return" and in_base):
                verb = "accepts" if visit.kind == "accept" else "returns"
                return f"{_rule(visit)} {verb} before it is translated{self._with_conditions(visit)}"
        return None

    def _of_expected(self, walked: Sequence[Visit], bases: Sequence[tuple[Table, str]]) -> str | None:
        """What happened to the chains that translate it on a healthy node."""
        for name, chain in self._expected:
            for table, base in bases:
                if table.name != name or chain not in table.chains:
                    continue
                if not table.size(chain):
                    return f"chain {chain} is empty"
                calls = {visit.text for visit in walked if visit.kind in ("jump", "goto") and visit.of(table)}
                if chain not in calls and chain != base and chain not in table.reachable(base):
                    return f"no jump from {base} leads to {chain}"
        return None

    def _turned_back(self, walked: Sequence[Visit]) -> str | None:
        """A RETURN that matched by addresses, or that matches every packet."""
        for visit in reversed(walked):
            if visit.kind == "return" and visit.rule is not None:
                if _by_address(visit.rule):
                    return f"{_rule(visit)} returns{self._with_conditions(visit)}"
                if not notation.conditions(visit.rule, iptables=visit.iptables):
                    return f"{_rule(visit)} returns every packet"
        return None

    def _unmatched(self, walked: Sequence[Visit], bases: Sequence[tuple[Table, str]]) -> str | None:
        """A chain with rules for addresses of which none matched; last, a RETURN with any other condition."""
        for chain in reversed(_entered(walked, bases)):
            if any(map(_by_address, chain.rules)):
                for visit in walked:
                    if visit.kind == "return" and visit.chain == chain.name:
                        return f"{_rule(visit)} returns{self._with_conditions(visit)}"
                return f"no rule of {chain.name} {'matches' if _translates(chain) else 'translates'}"
        for visit in reversed(walked):
            if visit.kind == "return" and visit.rule is not None:
                return f"{_rule(visit)} returns{self._with_conditions(visit)}"
        return None


_ChainKey = tuple[str, str, bool, str]


def _key(table: Table) -> tuple[str, str, bool]:
    return table.family, table.name, table.legacy


def _rule(visit: Visit) -> str:
    return f"{visit.chain} rule {visit.number}"


def _to_a_pod(ending: Ending) -> str:
    """A translation without use: its addresses are pods' addresses."""
    visit = next(visit for visit in ending.path if visit.kind == "snat")
    steps = visit.rule.steps if visit.rule is not None else ()
    source = next(span(step.first, step.last) for step in steps if isinstance(step, Snat))
    return f"{_rule(visit)} gives it the source {source}, an address of the pods"


def _nat_part(path: Sequence[Visit], bases: set[_ChainKey]) -> list[Visit]:
    """The visits within NAT base chains."""
    walked: list[Visit] = []
    inside = False
    for visit in path:
        if visit.kind == "base":
            inside = (*visit.place[:3], visit.chain) in bases
        if inside:
            walked.append(visit)
    return walked


def _entered(walked: Iterable[Visit], bases: Iterable[tuple[Table, str]]) -> list[Chain]:
    """The chains that were called, in order, without those that are too long to be read for a reason."""
    tables = {_key(table): table for table, _ in bases}
    found = []
    for visit in walked:
        if visit.kind in ("jump", "goto"):
            table = tables[visit.place[:3]]
            if visit.text in table.chains and table.size(visit.text) <= _LONG:
                found.append(table.chains[visit.text])
    return found


def _empty(walked: Iterable[Visit], bases: Sequence[tuple[Table, str]]) -> str | None:
    entered = list(reversed(_entered(walked, bases)))
    flannel = [chain for chain in entered if chain.name.upper().startswith("FLANNEL")]
    if not flannel and any(_translates(chain) and any(map(_by_address, chain.rules)) for chain in entered):
        return None  # a chain for such packets was walked: that none of its rules matched says more
    for chain in flannel or entered:
        if not chain.rules:
            return f"chain {chain.name} is empty"
    return None


def _translates(chain: Chain) -> bool:
    return any(isinstance(step, Masquerade | Snat) for rule in chain.rules for step in inner_steps(rule.steps))


def _unreached(walked: Sequence[Visit], bases: Sequence[tuple[Table, str]]) -> str | None:
    for table, base in bases:
        known = {base} | {visit.text for visit in walked if visit.of(table)}
        called = set[str]().union(*(table.calls(name) for name in known if name in table.chains))
        names = list(table.chains)
        if len(names) > _MOST_CHAINS:
            names = [name for name in names if any(part in name.lower() for part in _LIKELY)]
        for name in names:
            if name in known or name in called or table.size(name) > _LONG:
                continue
            chain = table.chains[name]
            if chain.hook is None and (_translates(chain) or (name.upper() == "FLANNEL-POSTRTG")):
                return f"no jump from {base} leads to {name}"
    return None


def _by_address(rule: Rule) -> bool:
    return any(isinstance(step, Source | Destination) for step in rule.steps)
