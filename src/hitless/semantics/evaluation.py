"""What would happen to this packet? The answer, with its reason.

Problem: "is there a masquerade rule?" is the wrong question: an emptied chain, a missing jump, a RETURN put in front, a
wrong subnet or a DROP elsewhere all cut pods off, and a harmless change does not. Promise: ``evaluate`` walks the
committed rules as the kernel would, over all tables, legacy and nf_tables together, and answers ``carried`` only when
the packet is certainly forwarded *and* source-translated, ``not_carried`` only when it certainly is not, and
``cannot_tell`` otherwise. It needs about as long as the packet passes rules, not as there are rules. It does not
model: routing, ingress and bridge hooks, flow tables, and what another host does. Next stages: ``watch``, ``guard``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hitless.model.families import Network
from hitless.model.packets import Packet
from hitless.model.rules import Masquerade, Ruleset, Snat
from hitless.semantics.decisive import find_decisive
from hitless.semantics.outcome import Ending, Outcome, State
from hitless.semantics.reasons import Reasons
from hitless.semantics.walk import Assumption, TooMuchError, Walk
from hitless.semantics.walk_state import Flow, unwind

__all__ = ["HOOKS", "evaluate"]

HOOKS = ("prerouting", "forward", "postrouting")
"""What a forwarded packet passes."""


def evaluate(
    ruleset: Ruleset,
    packet: Packet,
    hooks: Sequence[str] = HOOKS,
    *,
    unroutable: Sequence[Network] = (),
    nat: bool = True,
    expected: Sequence[tuple[str, str]] = (),
    explain: bool = True,
) -> Outcome:
    """The fate of the first packet of a flow (or, by ``packet.state``, of a later one) at ``hooks``, in that order.

    All base chains of both the legacy and the nf_tables path that see the packet's family are walked. Later packets of
    a flow (``ESTABLISHED``) keep the translation of the first, so that they are ``cannot_tell`` unless dropped. A
    source in one of the ``unroutable`` networks is no better than none: answers would not come back. ``nat`` false:
    everything but the chains of type nat is asked, that is, only whether the packet gets through. ``expected``: the
    chains (table, name) that translate such packets on a healthy node; only the reason is told by them. Not to
    ``explain`` is cheaper: the reason is then empty.
    """

    def asked(assumed: Assumption | None) -> tuple[Walk, tuple[Ending, ...]]:
        walk = Walk(ruleset, packet, nat=nat, assumed=assumed)
        flow = walk.start(hooks[0] if hooks else "")
        for hook in hooks:
            if not flow:
                break
            flow = walk.hook(hook, flow)
        return walk, (*walk.endings.values(), *_arrived(flow, unroutable))

    try:
        walk, endings = asked(None)
        state = _state(endings)
        if not explain:
            return Outcome(state, "", endings[0].path, frozenset(walk.chains), endings)
        why = Reasons(ruleset, packet, expected)
        if state != "cannot_tell":
            told = next((ending for ending in endings if ending.kind == "dropped"), endings[0])
            reason = why.certain(endings)
        else:
            told, splitter = find_decisive(endings, lambda assumed: {ending.kind for ending in asked(assumed)[1]})
            reason = why.doubt(told, splitter)
            if packet.state == "ESTABLISHED" and told.certain and told.kind == "unknown":
                reason = "later packets of a flow keep what its first packet got"
    except TooMuchError as error:
        return Outcome("cannot_tell", "there are too many rules to follow", (), error.chains, ())
    return Outcome(state, reason, told.path, frozenset(walk.chains), endings)


def _state(endings: Sequence[Ending]) -> State:
    kinds = {ending.kind for ending in endings}
    if kinds == {"translated"}:
        return "carried"
    return "not_carried" if kinds <= {"untranslated", "dropped"} else "cannot_tell"


def _arrived(flow: Flow, unroutable: Sequence[Network]) -> list[Ending]:
    """Endings of what came out of the last hook."""
    endings = []
    for state, trace in flow.items():
        kind: Literal["translated", "untranslated", "unknown"] = "unknown"
        if state.translation is not None:
            kind = _routable(state.translation.action, unroutable)
        elif state.ct_state in ("NEW", "INVALID", "UNTRACKED", "RELATED"):
            kind = "untranslated"
        connection = state.ct_mark, state.ct_unknown
        at = state.mark, state.unknown, connection, state.zone
        endings.append(Ending(kind, unwind(trace), state.translation, *at))
    return endings


def _routable(
    action: Masquerade | Snat, unroutable: Sequence[Network]
) -> Literal["translated", "untranslated", "unknown"]:
    """``translated`` when every address that the action may give is outside of the networks, ``untranslated`` when
    every one is inside. A masquerade gives an address of the node, whose own affair its routing is."""
    if isinstance(action, Masquerade):
        return "translated"
    first, last = int(action.first), int(action.last)
    inside = False
    for network in unroutable:
        if network.version == action.first.version:
            low, high = int(network.network_address), int(network.broadcast_address)
            if low <= first and last <= high:
                return "untranslated"
            inside = inside or (first <= high and low <= last)
    return "unknown" if inside else "translated"
