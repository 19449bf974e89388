"""The path of one packet through the hooks: in which ways can it end?

Problem: the answer must be right for any rule set, also one that is only partly understood, and cheap enough to be
evaluated at every change of the rules. Promise: an abstract interpreter of netfilter's semantics. ``Walk`` orders the
base chains of a hook as the kernel does, with the NAT core and conntrack between them; ``chain_walk`` applies their
rules. It never decides what the rules leave open. Sources: nft(8), iptables(8), and the kernel's nf_tables_core.c,
ip_tables.c, nf_nat_core.c; each claim is tested with packets in tests/kernel/semantics. Next stage: ``evaluation``
(answers and reasons).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby, permutations

from hitless.model.packets import Packet
from hitless.model.rules import Ruleset
from hitless.semantics.chain_walk import Assumption, ChainWalk
from hitless.semantics.stages import (
    CONNTRACK_PRIORITY,
    NAT_PRIORITY,
    BaseStage,
    ConntrackStage,
    NatStage,
    Stage,
    priority_of,
)
from hitless.semantics.walk_state import Flow, WalkState

__all__ = ["Walk"]

_MOST_EQUAL = 4  # base chains of one priority: 24 orders

_NO_INTERFACE = "/"  # not a possible name: at prerouting rules see an empty name for the outgoing interface

_WALKS_NAT = frozenset({"NEW", "RELATED"})
"""Conntrack states whose packets are passed to NAT chains; later packets are translated like the first one
(nf_nat_inet_fn)."""


class Walk:
    """Walks the hooks for one packet; ``endings`` and ``chains`` are filled on the way."""

    def __init__(
        self,
        ruleset: Ruleset,
        packet: Packet,
        *,
        nat: bool = True,
        arriving: Packet | None = None,
        assumed: Assumption | None = None,
    ) -> None:
        """``nat`` false: without chains of type nat. ``arriving``: a reply as it comes in, until the NAT core at
        prerouting turns it into ``packet``. ``assumed``: only the consequences of this assumption are followed."""
        self._arriving = arriving
        self.packet = packet
        self._hook = ""
        self._walker = ChainWalk(ruleset.node, packet.oif, assumed)
        self.endings, self.chains = self._walker.endings, self._walker.chains
        families = (packet.family.nft, "inet")
        self._filters: dict[str, list[BaseStage]] = {}
        self._nats: dict[str, list[BaseStage]] = {}
        for table in ruleset.tables:
            if table.family in families:
                for name, at in table.hooks():
                    if nat or at.type != "nat":
                        kind = self._nats if at.type == "nat" else self._filters
                        kind.setdefault(at.hook, []).append(BaseStage(at.priority, table, name, at))
        for bases in (*self._filters.values(), *self._nats.values()):
            bases.sort(key=priority_of)

    def start(self, hook: str, marks: Iterable[tuple[int, int]] = ()) -> Flow:
        """The packet before its first hook, ``hook``; ``marks``: the possible marks of its connection, each with the
        bits that are not known."""
        fresh = hook == "prerouting" and self.packet.state != "UNTRACKED"
        # a new connection has no mark; that of an older one is not known
        unknown = 0 if self.packet.state == "NEW" else 0xFFFFFFFF
        state = "INVALID" if fresh else self.packet.state
        known = tuple(marks) or ((0, unknown),)
        return {WalkState(self.packet.mark, 0, None, state, mark, unknown): None for mark, unknown in known}

    def hook(self, hook: str, flow: Flow) -> Flow:
        """Walk all base chains of a hook; returns the states that are not dropped."""
        self._hook = hook
        packet = self.packet
        stages: list[Stage] = list(self._filters.get(hook, ()))
        nat = self._nats.get(hook, [])
        restored = hook == "prerouting" and self._arriving is not None
        if (nat or restored) and hook in NAT_PRIORITY:
            stages.append(NatStage(NAT_PRIORITY[hook], nat))
        if hook == "prerouting":
            packet = replace(self._arriving or packet, oif=_NO_INTERFACE)
            stages.append(ConntrackStage(CONNTRACK_PRIORITY))
        self._walker.at(hook, packet)
        stages.sort(key=priority_of)
        for _, group in groupby(stages, key=priority_of):
            flow = self._unordered(list(group), flow)
        return flow

    def _unordered(self, group: list[Stage], flow: Flow) -> Flow:
        """Walk stages of equal priority: the kernel orders them by registration, which no dump shows.

        If none of them has an effect, or there is only one, the order does not matter; else every order is walked.
        """
        before, seen = len(self.endings), self._walker.packet
        result = self._in_order(group, flow)
        if len(group) == 1 or (
            self._walker.packet == seen and result.keys() == flow.keys() and len(self.endings) == before
        ):
            return result
        if len(group) > _MOST_EQUAL:
            for state, trace in flow.items():
                self._walker.end("unknown", state, trace, None)
            return result
        for order in permutations(group):
            self._walker.at(self._hook, seen)
            for state, trace in self._in_order(order, flow).items():
                result.setdefault(state, trace)
        return result

    def _in_order(self, stages: Iterable[Stage], flow: Flow) -> Flow:
        for stage in stages:
            if isinstance(stage, BaseStage):
                flow = self._walker.base(stage, flow) if flow else flow
            elif isinstance(stage, NatStage):
                flow = self._restored(flow) if self._walker.packet.own else flow
                flow = self._translate(stage.bases, flow) if flow else flow
            else:
                flow = self._after_conntrack(flow)
        return flow

    def _after_conntrack(self, flow: Flow) -> Flow:
        """Conntrack sees the packet, except after a NOTRACK."""
        seen: Flow = {}
        for state, trace in flow.items():
            hidden = state.ct_state == "UNTRACKED"
            seen.setdefault(state if hidden else state._replace(ct_state=self.packet.state), trace)
        return seen

    def _restored(self, flow: Flow) -> Flow:
        """The NAT core restores a reply's destination, the pod, if conntrack knows the connection."""
        self._walker.at(self._hook, replace(self.packet, oif=_NO_INTERFACE))
        known: Flow = {}
        for state, trace in flow.items():
            if state.ct_state in ("INVALID", "UNTRACKED"):
                self._walker.end("dropped", state, trace, None)
            else:
                known[state] = trace
        return known

    def _translate(self, bases: Iterable[BaseStage], flow: Flow) -> Flow:
        """The NAT core: base chains by priority until one of them translates; only for new connections."""
        new = {state: trace for state, trace in flow.items() if state.ct_state in _WALKS_NAT}
        others = {state: trace for state, trace in flow.items() if state.ct_state not in _WALKS_NAT}
        for _, group in groupby(bases if new else (), key=priority_of):
            new = self._nat_group(list(group), new)
        return {**others, **new}

    def _nat_group(self, group: list[BaseStage], flow: Flow) -> Flow:
        done: Flow = {}
        before = len(self.endings)
        orders = permutations(group) if 1 < len(group) <= _MOST_EQUAL else [tuple(group)]
        for index, order in enumerate(orders):
            result = flow
            for base in order:
                untranslated = {state: trace for state, trace in result.items() if state.translation is None}
                if untranslated:
                    translated = {state: trace for state, trace in result.items() if state not in untranslated}
                    result = {**translated, **self._walker.base(base, untranslated)}
            for state, trace in result.items():
                done.setdefault(state, trace)
            if index == 0 and result.keys() == flow.keys() and len(self.endings) == before:
                break  # none of them had an effect, so the order does not matter
        if len(group) > _MOST_EQUAL and (done.keys() != flow.keys() or len(self.endings) != before):
            for state, trace in flow.items():
                self._walker.end("unknown", state, trace, None)
        return done
