"""Evaluates the rules for one pod: do its new flows get out, and do the answers come back?

Promise: several packets are evaluated and the worst result counts; the answer to each packet that may get out is
evaluated too, and its loss is a "no" with a reason of its own. Next stage: ``panels``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from hitless.model.families import Address, Network
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP, Packet
from hitless.model.rules import Ruleset, Snat
from hitless.observe.panels import Fate, How
from hitless.observe.uplinks import Uplink
from hitless.semantics import HOOKS, ChainName, Ending, Outcome, State, evaluate, evaluate_reply

__all__ = ["THROUGH", "egress", "nat", "through"]

THROUGH = ("prerouting", "forward")
"""Where a forwarded packet may be dropped before it is translated. nat chains at prerouting are not evaluated: they
have a rule for each Service, and a witness packet goes to none."""

_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}


def egress(
    ruleset: Ruleset,
    packets: Iterable[Packet],
    uplink: Uplink,
    *,
    unroutable: Sequence[Network] = (),
    hooks: Sequence[str] = HOOKS,
    expected: Sequence[tuple[str, str]] = (),
    explain: bool = True,
) -> Fate:
    """The worst answer of all packets. ``expected``: the chains (table, name) that translate on a healthy node. Without
    ``explain`` the reason is empty, which is cheaper."""

    def out(packet: Packet, reasons: bool) -> Outcome:
        return evaluate(ruleset, packet, hooks, unroutable=unroutable, expected=expected, explain=reasons)

    def back(packet: Packet, outcome: Outcome, reasons: bool) -> Outcome:
        return evaluate_reply(ruleset, packet, hooks, _translated_to(outcome, uplink), outcome, explain=reasons)

    return _worst(packets, out, back, lambda outcome: (outcome.state, _how(outcome)), explain=explain)


def through(
    ruleset: Ruleset, packets: Iterable[Packet], uplink: Uplink, hooks: Sequence[str] = THROUGH, *, explain: bool = True
) -> Fate:
    """The same for the path through the node only, whatever source address the packets get.

    A flow that is hidden from conntrack (NOTRACK) counts as dropped: no nat chain is evaluated for it.
    """

    def out(packet: Packet, reasons: bool) -> Outcome:
        return evaluate(ruleset, packet, hooks, nat=False, explain=reasons)

    def back(packet: Packet, outcome: Outcome, reasons: bool) -> Outcome:
        all_hooks = HOOKS if hooks == THROUGH else hooks
        return evaluate_reply(ruleset, packet, all_hooks, uplink.address, outcome, explain=reasons)

    def judged(outcome: Outcome) -> tuple[State, How]:
        kinds = {"dropped" if _hidden(ending) else ending.kind for ending in outcome.endings}
        if kinds == {"dropped"}:
            return "not_carried", _refused(outcome)
        return ("cannot_tell" if kinds & {"dropped", "unknown"} or not kinds else "carried"), ""

    return _worst(packets, out, back, judged, explain=explain)


def _worst(
    packets: Iterable[Packet],
    out: Callable[[Packet, bool], Outcome],
    back: Callable[[Packet, Outcome, bool], Outcome],
    judged: Callable[[Outcome], tuple[State, How]],
    *,
    explain: bool,
) -> Fate:
    """The worst fate of all packets and their answers; only its reason is worked out. After a "no" the others are not
    evaluated: they cannot change it."""
    chains: set[ChainName] = set()
    replies: set[ChainName] = set()
    worst: Fate | None = None
    explained: Callable[[], Outcome] | None = None
    suffix = ""
    for number, packet in enumerate(packets):
        outcome = out(packet, False)
        chains |= outcome.chains
        state, how = judged(outcome)
        fate = Fate(state, "", by=_dropping(outcome), how=how)
        asked = partial(out, packet, True)
        if state != "not_carried":
            answer = back(packet, outcome, False)
            replies |= answer.chains
            if answer.state == "not_carried":
                fate = Fate("not_carried", "", how="unanswered")
            elif answer.state == "cannot_tell" and state == "carried":
                fate = Fate("cannot_tell", "")
            if fate.how == "unanswered" or fate.state != state:
                asked = partial(back, packet, outcome, True)
        if worst is None or (worst.state == "carried" and fate.state != "carried") or fate.state == "not_carried":
            worst, explained = fate, asked
            named = number and fate.state != "carried"
            suffix = f" ({_NAMES.get(packet.protocol, packet.protocol)} to {packet.dst})" if named else ""
        if fate.state == "not_carried":
            break
    if worst is None or explained is None:
        return Fate("cannot_tell", "there is no witness packet")
    if explain:
        worst = worst.saying(explained().reason + suffix)
    return worst.with_chains(chains, replies)


def _hidden(ending: Ending) -> bool:
    return any(visit.kind == "notrack" for visit in ending.path)


def nat(ruleset: Ruleset, packets: Iterable[Packet], *, explain: bool = True) -> Fate:
    """Whether the nat rules translate a pod's new flows: of each protocol to one far end at least, as a rule may exempt
    any one of them."""
    chains: set[ChainName] = set()
    by_protocol: dict[int, set[State]] = {}
    reason, carried = "", ""
    for packet in packets:
        states = by_protocol.setdefault(packet.protocol, set())
        if "carried" not in states:
            outcome = evaluate(ruleset, packet, ("postrouting",), explain=explain)
            chains |= outcome.chains
            states.add(outcome.state)
            if outcome.state == "carried":
                carried = carried or outcome.reason
            else:
                reason = reason or outcome.reason
    lost = [states for states in by_protocol.values() if "carried" not in states]
    state: State = "carried"
    if any(states == {"not_carried"} for states in lost):
        state = "not_carried"
    elif lost or not by_protocol:
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


def _translated_to(outcome: Outcome, uplink: Uplink) -> Address | None:
    """The source that the flow was given, where it is known."""
    translation = outcome.translation
    if translation is None:
        return None
    action = translation.action
    if isinstance(action, Snat):
        return action.first if action.first == action.last else None
    return uplink.address
