"""Why: one sentence for people, from a journey that was walked.

Problem: "not carried" sends an operator searching through hundreds of rules. Promise: the sentence names the chain and
the rule that decided, or what is missing where the translation used to be (an empty chain, a jump that is gone). It is
a reading of the journey, chosen for usefulness: an early end of the base chain first, then a translating chain that
nothing leads to, a rule that turned the packet back, an empty chain, and last that no rule matched. Some chains are
empty on every healthy node (Felix has several), so that an empty one is the cause only where nothing else is. It never
changes the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.model.families import Family
from hitless.model.packets import Packet
from hitless.model.rules import Chain, Destination, Goto, Jump, Masquerade, Rule, Ruleset, Snat, Source, Table
from hitless.semantics import words
from hitless.semantics.outcome import Ending, State, Visit

__all__ = ["reason_for", "reason_for_answer"]

_MOST_CHAINS = 2000
_IPTABLES = "nat"
"""The table that people mean when they name none: iptables has one for translations."""
_LIKELY = ("post", "masq", "snat", "nat-outgoing", "flannel")
"""What the names of chains that translate sources contain, where there are too many chains to look into each."""


def reason_for(ruleset: Ruleset, packet: Packet, ending: Ending, certain: bool) -> str:
    """The sentence for one ending; ``certain``: it is the only one that is possible."""
    if not certain:
        return _doubt(ending)
    match ending.kind:
        case "translated":
            return _translated(ending)
        case "dropped":
            return _dropped(ending.path[-1])
        case "unknown":
            return _doubt(ending)
        case "untranslated" if ending.translation is not None:
            return _to_a_pod(ending)
        case "untranslated":
            return _untranslated(ruleset, packet, ending.path)
        case "arrived":
            return "it arrives"


def reason_for_answer(ending: Ending, state: State) -> str:
    """The same for the answer to a packet that was carried."""
    if state == "carried":
        return "answers arrive"
    if state == "cannot_tell":
        return f"whether answers come back: {_doubt(ending)}"
    for visit in ending.path:
        if visit.kind == "notrack":
            where = f"{visit.family} {visit.table}"
            return f"answers are lost: {_rule(visit)} ({where}) hides them from conntrack"
    visit = ending.path[-1]
    where = f"{visit.family} {visit.table}"
    if visit.kind == "policy drop":
        return f"answers are dropped by the policy of {visit.chain} ({where})"
    verb = "rejected" if visit.kind == "reject" else "dropped"
    return f"answers are {verb} by {_rule(visit)} ({where}){_with_conditions(visit.rule)}"


def _rule(visit: Visit) -> str:
    return f"{visit.chain} rule {visit.number}"


def _with_conditions(rule: Rule | None) -> str:
    text = words.conditions(rule) if rule is not None else ""
    return f" ({text})" if text else ""


def _translated(ending: Ending) -> str:
    visit = next(visit for visit in ending.path if visit.kind in ("masquerade", "snat"))
    verb = "masquerades" if visit.kind == "masquerade" else "translates"
    # a standby's chain may carry the name of the agent's that it stands for: the table tells them apart
    where = "" if visit.table == _IPTABLES else f" ({visit.family} {visit.table})"
    return f"{_rule(visit)}{where} {verb} it{_with_conditions(visit.rule)}"


def _dropped(visit: Visit) -> str:
    where = f"{visit.family} {visit.table}"
    if visit.kind == "policy drop":
        return f"the policy of {visit.chain} ({where}) drops it"
    verb = "rejects" if visit.kind == "reject" else "drops"
    return f"{_rule(visit)} ({where}) {verb} it{_with_conditions(visit.rule)}"


def _doubt(ending: Ending) -> str:
    for visit in ending.path:
        if visit.kind == "unknown":
            return f"{_rule(visit)} depends on what is not known here: {visit.text}"
        if visit.kind == "opaque":
            return f"{_rule(visit)} does what is not understood here: {visit.text}"
        if visit.kind == "dnat":
            return f"{_rule(visit)} sends it on to {visit.text or 'elsewhere'}{_with_conditions(visit.rule)}"
    if any(visit.kind == "snat" for visit in ending.path):
        return _to_a_pod(ending).replace("an address", "maybe an address")
    return "several base chains of the same priority disagree"


# --- why there is no translation


def _to_a_pod(ending: Ending) -> str:
    """A translation that does not help: its addresses are the pods'."""
    visit = next(visit for visit in ending.path if visit.kind == "snat")
    steps = visit.rule.steps if visit.rule is not None else ()
    first, last = next((step.first, step.last) for step in steps if isinstance(step, Snat))
    source = f"{first}" if first == last else f"{first}-{last}"
    return f"{_rule(visit)} gives it the source {source}, an address of the pods"


def _untranslated(ruleset: Ruleset, packet: Packet, path: Sequence[Visit]) -> str:
    tables = {(table.family, table.name, table.legacy): table for table in ruleset.tables}
    families = (packet.family.nft, "inet")
    bases = [
        (table, chain)
        for table in tables.values()
        if table.family in families
        for chain in table.base_chains()
        if chain.hook is not None and chain.hook.type == "nat" and chain.hook.hook == "postrouting"
    ]
    if not bases:
        return f"no NAT chain stands at postrouting for {'IPv4' if packet.family is Family.IPV4 else 'IPv6'}"
    for visit in path:
        if visit.kind == "notrack":
            where = f"{visit.family} {visit.table}"
            return f"{_rule(visit)} ({where}) hides it from conntrack, so that no NAT chain is asked"
    if packet.state in ("INVALID", "UNTRACKED"):
        return f"{packet.state} packets are never translated"
    if all(not chain.rules for _, chain in bases):
        return f"chain {bases[0][1].name} is empty"
    names = {(table.family, table.name, chain.name) for table, chain in bases}
    walked = _nat_part(path, names)
    return (
        _ended_early(walked, names)
        or _unreached(walked, bases)
        or _turned_back(walked)
        or _empty(walked, bases)
        or _unmatched(walked, bases)
        or f"no rule of {', '.join(dict.fromkeys(chain.name for _, chain in bases))} translates {packet.src}"
    )


def _nat_part(path: Sequence[Visit], bases: set[tuple[str, str, str]]) -> list[Visit]:
    """The visits within NAT base chains."""
    walked: list[Visit] = []
    inside = False
    for visit in path:
        if visit.kind == "base":
            inside = (visit.family, visit.table, visit.chain) in bases
        if inside:
            walked.append(visit)
    return walked


def _ended_early(walked: Iterable[Visit], bases: set[tuple[str, str, str]]) -> str | None:
    for visit in walked:
        in_base = (visit.family, visit.table, visit.chain) in bases
        if visit.kind == "accept" or (visit.kind == "return" and in_base):
            verb = "accepts" if visit.kind == "accept" else "returns"
            return f"{_rule(visit)} {verb} before it is translated{_with_conditions(visit.rule)}"
    return None


def _entered(walked: Iterable[Visit], bases: Iterable[tuple[Table, Chain]]) -> list[Chain]:
    """The chains that were called, in their order."""
    tables = {(table.family, table.name): table for table, _ in bases}
    found = []
    for visit in walked:
        if visit.kind in ("jump", "goto"):
            chain = tables[visit.family, visit.table].chains.get(visit.text)
            if chain is not None:
                found.append(chain)
    return found


def _empty(walked: Iterable[Visit], bases: Sequence[tuple[Table, Chain]]) -> str | None:
    entered = list(reversed(_entered(walked, bases)))
    flannel = [chain for chain in entered if chain.name.upper().startswith("FLANNEL")]
    if not flannel and any(_translates(chain) and any(map(_by_address, chain.rules)) for chain in entered):
        return None  # a chain for such packets is there, and was asked: that it did not match says more
    for chain in flannel or entered:
        if not chain.rules:
            return f"chain {chain.name} is empty"
    return None


def _translates(chain: Chain) -> bool:
    return any(isinstance(step, Masquerade | Snat) for rule in chain.rules for step in rule.steps)


def _calls(chain: Chain) -> set[str]:
    return {step.chain for rule in chain.rules for step in rule.steps if isinstance(step, Jump | Goto)}


def _unreached(walked: Sequence[Visit], bases: Sequence[tuple[Table, Chain]]) -> str | None:
    for table, base in bases:
        known = {base.name} | {visit.text for visit in walked if visit.table == table.name}
        called = set().union(*(_calls(chain) for name in known if (chain := table.chains.get(name)) is not None))
        names = list(table.chains)
        if len(names) > _MOST_CHAINS:
            names = [name for name in names if any(part in name.lower() for part in _LIKELY)]
        for name in names:
            if name in known or name in called:
                continue
            chain = table.chains[name]
            if chain.hook is None and (_translates(chain) or (name.upper() == "FLANNEL-POSTRTG")):
                return f"no jump from {base.name} leads to {name}"
    return None


def _by_address(rule: Rule) -> bool:
    return any(isinstance(step, Source | Destination) for step in rule.steps)


def _turned_back(walked: Sequence[Visit]) -> str | None:
    """A RETURN that speaks of addresses, or of nothing at all."""
    for visit in reversed(walked):
        if visit.kind == "return" and visit.rule is not None:
            if _by_address(visit.rule):
                return f"{_rule(visit)} returns{_with_conditions(visit.rule)}"
            if not words.conditions(visit.rule):
                return f"{_rule(visit)} returns every packet"
    return None


def _unmatched(walked: Sequence[Visit], bases: Sequence[tuple[Table, Chain]]) -> str | None:
    """A chain whose rules speak of addresses, of which none matched; last a RETURN that speaks of anything else."""
    for chain in reversed(_entered(walked, bases)):
        if any(map(_by_address, chain.rules)):
            for visit in walked:
                if visit.kind == "return" and visit.chain == chain.name:
                    return f"{_rule(visit)} returns{_with_conditions(visit.rule)}"
            return f"no rule of {chain.name} {'matches' if _translates(chain) else 'translates'}"
    for visit in reversed(walked):
        if visit.kind == "return" and visit.rule is not None:
            return f"{_rule(visit)} returns{_with_conditions(visit.rule)}"
    return None
