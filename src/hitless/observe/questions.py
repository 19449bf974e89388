"""The question that is put to the rules for one pod: do its new flows get out, and do the answers come back?

Promise: several packets are asked about and the worst answer counts; the answer to each that may get out is asked about
too, and its loss is a "no" with a reason of its own. Next stage: ``panels``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.model.events import State
from hitless.model.families import Address, Network
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP, Packet
from hitless.model.rules import Ruleset, Snat
from hitless.observe.panels import Fate, How
from hitless.observe.uplinks import Uplink
from hitless.semantics import HOOKS, ChainName, Ending, Outcome, evaluate, way_back

__all__ = ["THROUGH", "egress", "nat", "there_and_back", "through"]

THROUGH = ("prerouting", "forward")
"""Where a forwarded packet may be dropped before it is translated. What nat chains do at prerouting is not asked: they
hold a rule for each Service, and a witness goes to none."""

_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}


def egress(
    ruleset: Ruleset,
    packets: Iterable[Packet],
    way: Uplink,
    *,
    unroutable: Sequence[Network] = (),
    hooks: Sequence[str] = HOOKS,
    expected: Sequence[tuple[str, str]] = (),
) -> Fate:
    """The worst answer of all packets. After a "no" the others need not be asked: they cannot change it. ``expected``:
    the chains (table, name) that translate on a healthy node."""
    chains: set[ChainName] = set()
    replies: set[ChainName] = set()
    worst: Fate | None = None
    for number, packet in enumerate(packets):
        outcome = evaluate(ruleset, packet, hooks, unroutable=unroutable, expected=expected)
        chains |= outcome.chains
        fate = Fate(outcome.state, outcome.reason, by=_dropping(outcome), how=_how(outcome))
        if outcome.state != "not_carried":
            back = way_back(ruleset, packet, hooks, _translated_to(outcome, way), outcome)
            replies |= back.chains
            fate = there_and_back(fate, back)
        if number and fate.state != "carried":
            fate = fate.saying(f"{fate.reason} ({_NAMES.get(packet.protocol, packet.protocol)} to {packet.dst})")
        if worst is None or (worst.state == "carried" and fate.state != "carried") or fate.state == "not_carried":
            worst = fate
        if fate.state == "not_carried":
            break
    if worst is None:
        return Fate("cannot_tell", "there is no witness packet")
    return worst.with_chains(chains, replies)


def through(ruleset: Ruleset, packets: Iterable[Packet], way: Uplink, hooks: Sequence[str] = THROUGH) -> Fate:
    """The same of the way through the node alone, whatever source the packets are given.

    A flow that is hidden from conntrack (NOTRACK) is as good as dropped: no nat chain is asked for it.
    """
    chains: set[ChainName] = set()
    replies: set[ChainName] = set()
    worst: Fate | None = None
    for packet in packets:
        outcome = evaluate(ruleset, packet, hooks, nat=False)
        chains |= outcome.chains
        kinds = {"dropped" if _hidden(ending) else ending.kind for ending in outcome.endings}
        if kinds == {"dropped"}:
            worst = Fate("not_carried", outcome.reason, by=_dropping(outcome), how=_refused(outcome))
            break
        open_ = kinds & {"dropped", "unknown"} or not kinds
        back = way_back(ruleset, packet, HOOKS if hooks == THROUGH else hooks, way.address)
        replies |= back.chains
        fate = there_and_back(Fate("cannot_tell" if open_ else "carried", outcome.reason), back)
        if worst is None or (worst.state == "carried" and fate.state != "carried") or fate.state == "not_carried":
            worst = fate
        if fate.state == "not_carried":
            break
    if worst is None:
        return Fate("cannot_tell", "there is no witness packet")
    return worst.with_chains(chains, replies)


def _hidden(ending: Ending) -> bool:
    return any(visit.kind == "notrack" for visit in ending.path)


def there_and_back(out: Fate, back: Outcome) -> Fate:
    """The fate of a flow whose first packet is not certainly lost."""
    state: State = out.state
    if back.state == "not_carried":
        return Fate("not_carried", back.reason, how="unanswered")
    if back.state == "cannot_tell" and state == "carried":
        return Fate("cannot_tell", back.reason)
    return out


def nat(ruleset: Ruleset, packets: Iterable[Packet]) -> Fate:
    """Whether the nat rules translate a pod's new flows: of each protocol to one far end at least, as a rule may exempt
    any one of them."""
    chains: set[ChainName] = set()
    told: dict[int, set[State]] = {}
    reason, carried = "", ""
    for packet in packets:
        states = told.setdefault(packet.protocol, set())
        if "carried" not in states:
            outcome = evaluate(ruleset, packet, ("postrouting",))
            chains |= outcome.chains
            states.add(outcome.state)
            if outcome.state == "carried":
                carried = carried or outcome.reason
            else:
                reason = reason or outcome.reason
    lost = [states for states in told.values() if "carried" not in states]
    state: State = "carried"
    if any(states == {"not_carried"} for states in lost):
        state = "not_carried"
    elif lost or not told:
        state = "cannot_tell"
    how: How = "untranslated" if state == "not_carried" else ""
    return Fate(state, carried if state == "carried" else reason, frozenset(chains), how=how)


def _dropping(outcome: Outcome) -> str:
    return outcome.dropped.chain if outcome.dropped is not None else ""


def _how(outcome: Outcome) -> How:
    if outcome.state != "not_carried":
        return ""
    return "untranslated" if outcome.dropped is None else _refused(outcome)


def _refused(outcome: Outcome) -> How:
    return "rejected" if outcome.dropped is not None and outcome.dropped.kind == "reject" else "dropped"


def _translated_to(outcome: Outcome, way: Uplink) -> Address | None:
    """The source that the flow was given, where it is known."""
    translation = outcome.translation
    if translation is None:
        return None
    action = translation.action
    if isinstance(action, Snat):
        return action.first if action.first == action.last else None
    return way.address
