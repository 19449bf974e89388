"""What would happen to this packet, and why?

Problem: "is there a masquerade rule?" is the wrong question: an emptied chain, a missing jump, a RETURN in front, a
wrong subnet or a DROP elsewhere all cut pods off, and a harmless change does not. Promise: ``evaluate`` walks the
committed rules as the kernel would, over all tables, legacy and nf_tables together. It answers ``carried`` only when
the packet is certainly forwarded *and* source-translated, ``not_carried`` only when it certainly is not, and
``cannot_tell`` otherwise. Its cost depends on the rules on the packet's path, not on all rules. Not modelled: routing,
ingress and bridge hooks, flow tables, and what another host does. Next stages: ``watch``, ``guard``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hitless.model.families import Network
from hitless.model.packets import Packet
from hitless.model.rules import Masquerade, Ruleset, Snat
from hitless.semantics.chain_walk import Assumption, TooMuchError
from hitless.semantics.decisive import find_decisive
from hitless.semantics.outcome import Ending, Outcome, State
from hitless.semantics.reasons import Reasons
from hitless.semantics.walk import Walk
from hitless.semantics.walk_state import Flow, unwind

__all__ = ["HOOKS", "evaluate"]

HOOKS = ("prerouting", "forward", "postrouting")
"""The hooks that a forwarded packet passes."""


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
    """The outcome for the first packet of a flow (or, by ``packet.state``, for a later one) at ``hooks``, in that
    order.

    All base chains of the legacy and the nf_tables path for the packet's family are walked. Later packets of a flow
    (``ESTABLISHED``) keep the translation of the first, so the answer for them is ``cannot_tell`` unless they are
    dropped. A source address in one of the ``unroutable`` networks counts as untranslated: replies would not come back.
    ``nat`` false: chains of type nat are left out, so that only dropping is evaluated. ``expected``: the chains (table,
    name) that translate such packets on a healthy node; used for the reason only. Without ``explain`` the reason is
    empty, which is cheaper.
    """

    def walk_rules(assumed: Assumption | None) -> tuple[Walk, tuple[Ending, ...]]:
        walk = Walk(ruleset, packet, nat=nat, assumed=assumed)
        flow = walk.start(hooks[0] if hooks else "")
        for hook in hooks:
            if not flow:
                break
            flow = walk.hook(hook, flow)
        return walk, (*walk.endings.values(), *_arrived(flow, unroutable))

    try:
        walk, endings = walk_rules(None)
        state = _state(endings)
        if not explain:
            return Outcome(state, "", endings[0].path, frozenset(walk.chains), endings)
        why = Reasons(ruleset, packet, expected)
        if state != "cannot_tell":
            shown = next((ending for ending in endings if ending.kind == "dropped"), endings[0])
            reason = why.certain(endings)
        else:
            shown, splitter = find_decisive(endings, lambda assumed: {ending.kind for ending in walk_rules(assumed)[1]})
            reason = why.doubt(shown, splitter)
            if packet.state == "ESTABLISHED" and shown.certain and shown.kind == "unknown":
                reason = "later packets of a flow keep what its first packet got"
    except TooMuchError as error:
        return Outcome("cannot_tell", "there are too many rules to follow", (), error.chains, ())
    return Outcome(state, reason, shown.path, frozenset(walk.chains), endings)


def _state(endings: Sequence[Ending]) -> State:
    kinds = {ending.kind for ending in endings}
    if kinds == {"translated"}:
        return "carried"
    return "not_carried" if kinds <= {"untranslated", "dropped"} else "cannot_tell"


def _arrived(flow: Flow, unroutable: Sequence[Network]) -> list[Ending]:
    """The endings of the states that passed the last hook."""
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
    """``translated`` when all addresses that the action may give are outside of the networks, ``untranslated`` when all
    are inside. A masquerade gives an address of the node, which is taken as routable."""
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
