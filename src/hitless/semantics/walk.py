"""The journey of one packet through the rules: which ways can it end?

Problem: the answer must be right for any rule set, also one that is half understood, and cheap enough to be asked for
at every change of the rules. Promise: an abstract interpreter of netfilter's semantics. A *flow* is the set of states
(mark, translation) that the packet can be in; every rule is applied to the whole flow; a condition that cannot be told
lets the state both pass and stop; equal states merge, so the work grows with rules times states and not with the number
of open questions. Bounds on nesting, states and rules make it end for any input. Never decides anything that the rules
leave open. Sources: nft(8), iptables(8), and the kernel's nf_tables_core.c, ip_tables.c, nf_nat_core.c; each claim has
its packet in tests/kernel/semantics. Next stage: ``evaluation`` (answers and reasons).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby, permutations
from typing import Literal

from hitless.model.packets import Packet
from hitless.model.rules import (
    Accept,
    ConnMark,
    Dnat,
    Drop,
    Goto,
    Jump,
    Mark,
    Masquerade,
    Match,
    NoTrack,
    OneOf,
    OpaqueAction,
    Reject,
    Return,
    Rule,
    Ruleset,
    SetProperty,
    Silent,
    Snat,
    Step,
    Table,
)
from hitless.semantics.contexts import header_of
from hitless.semantics.outcome import ChainName, Ending, Translation, Visit
from hitless.semantics.properties import EvaluationContext
from hitless.semantics.stages import (
    CONNTRACK_PRIORITY,
    NAT_PRIORITY,
    BaseStage,
    ConntrackStage,
    NatStage,
    RuleInProgress,
    Stage,
    priority_of,
)
from hitless.semantics.walk_state import CHANGES, ZONE, Flow, Trace, WalkState, changed, unwind, with_mark

__all__ = ["Assumption", "TooMuchError", "Walk"]

Assumption = tuple[str, str, bool, str, int, bool]
"""A rule (``Visit.place``) whose open conditions are taken to hold, or not to."""

_MOST_RULES = 200_000  # about half a second; 5,000 Services in one linear chain are far below it
_MOST_STATES = 256
_MOST_EQUAL = 4  # base chains of one priority: 24 orders
_DEEPEST = 128  # nf_tables allows 16 jumps; the legacy path as many as there are chains

_NOWHERE = "/"  # no interface is called that: at prerouting nobody knows the way out, and its name is empty

_WALKS_NAT = frozenset({"NEW", "RELATED"})
"""Conntrack states whose packet asks the NAT chains; later packets get what the first one got (nf_nat_inet_fn)."""


class TooMuchError(Exception):
    """The walk met a bound; never leaves ``semantics``. ``chains`` are those that it has seen."""

    def __init__(self, chains: Iterable[ChainName]) -> None:
        super().__init__()
        self.chains = frozenset(chains)


class Walk:
    """One packet's way; ``endings`` and ``chains`` fill up as hooks are walked."""

    def __init__(
        self,
        ruleset: Ruleset,
        packet: Packet,
        *,
        nat: bool = True,
        arriving: Packet | None = None,
        assumed: Assumption | None = None,
    ) -> None:
        """``nat`` false: chains of type nat are not asked. ``arriving``: what an answer looks like until the NAT core
        at prerouting sends it on to the pod, as ``packet``. ``assumed``: what would be, if a rule's doubt were gone."""
        self._arriving = arriving
        self.packet = packet
        self._node = ruleset.node
        self._assumed = assumed
        self._hook = ""
        self._last_context: EvaluationContext | None = None
        self.endings: dict[tuple[object, ...], Ending] = {}
        self.chains: set[ChainName] = set()
        self._budget = _MOST_RULES
        self._packet = packet
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
        """The packet before its first hook, ``hook``; ``marks``: what its connection's mark may be (and the bits that
        are not known)."""
        fresh = hook == "prerouting" and self.packet.state != "UNTRACKED"
        # a new connection has no mark; what an older one got from rules since then nobody knows
        unknown = 0 if self.packet.state == "NEW" else 0xFFFFFFFF
        state = "INVALID" if fresh else self.packet.state
        known = tuple(marks) or ((0, unknown),)
        return {WalkState(self.packet.mark, 0, None, state, mark, unknown): None for mark, unknown in known}

    def hook(self, hook: str, flow: Flow) -> Flow:
        """Walk all base chains of a hook; what is not dropped comes out."""
        self._packet = self.packet
        self._hook = hook
        self._last_context = None
        stages: list[Stage] = list(self._filters.get(hook, ()))
        nat = self._nats.get(hook, [])
        undone = hook == "prerouting" and self._arriving is not None
        if (nat or undone) and hook in NAT_PRIORITY:
            stages.append(NatStage(NAT_PRIORITY[hook], nat))
        if hook == "prerouting":
            self._packet = replace(self._arriving or self.packet, oif=_NOWHERE)
            stages.append(ConntrackStage(CONNTRACK_PRIORITY))
        stages.sort(key=priority_of)
        for _, group in groupby(stages, key=priority_of):
            flow = self._unordered(list(group), flow)
        return flow

    def _context(self, state: WalkState) -> EvaluationContext:
        context = self._last_context  # most flows have one state
        if context is None or context.state is not state or context.packet is not self._packet:
            context = EvaluationContext(self._packet, state, self._hook, self._node, self.packet.oif)
            self._last_context = context
        return context

    def _rules(self, table: Table, chain: str, positions: Iterable[WalkState]) -> Sequence[tuple[int, Rule]]:
        """The rules that the packet may meet in any of these positions."""
        contexts = [self._context(state) for state in positions]
        return table.rules_for(chain, header_of(self._packet, self._hook, contexts))

    def _unordered(self, group: list[Stage], flow: Flow) -> Flow:
        """Walk stages of equal priority: the kernel orders them by registration, which no dump tells.

        As long as none of them does anything, or there is only one, the order does not matter; else each is walked.
        """
        before, seen = len(self.endings), self._packet
        result = self._in_order(group, flow)
        if len(group) == 1 or (self._packet == seen and result.keys() == flow.keys() and len(self.endings) == before):
            return result
        if len(group) > _MOST_EQUAL:
            for state, trace in flow.items():
                self._end("unknown", state, trace, None)
            return result
        for order in permutations(group):
            self._packet = seen
            for state, trace in self._in_order(order, flow).items():
                result.setdefault(state, trace)
        return result

    def _in_order(self, stages: Iterable[Stage], flow: Flow) -> Flow:
        for stage in stages:
            if isinstance(stage, BaseStage):
                flow = self._base(stage, flow) if flow else flow
            elif isinstance(stage, NatStage):
                flow = self._undone(flow) if self._packet.own else flow
                flow = self._translate(stage.bases, flow) if flow else flow
            else:
                flow = self._tracked(flow)
        return flow

    def _tracked(self, flow: Flow) -> Flow:
        """Conntrack sees the packet, unless it was told to look away."""
        seen: Flow = {}
        for state, trace in flow.items():
            hidden = state.ct_state == "UNTRACKED"
            seen.setdefault(state if hidden else state._replace(ct_state=self.packet.state), trace)
        return seen

    def _undone(self, flow: Flow) -> Flow:
        """The NAT core sends an answer on to the pod, unless conntrack does not know that it is one."""
        self._packet = replace(self.packet, oif=_NOWHERE)
        known: Flow = {}
        for state, trace in flow.items():
            if state.ct_state in ("INVALID", "UNTRACKED"):
                self._end("dropped", state, trace, None)
            else:
                known[state] = trace
        return known

    def _translate(self, bases: Iterable[BaseStage], flow: Flow) -> Flow:
        """The NAT core: base chains by priority until one of them sets up a mapping. Only new flows ask them."""
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
                asking = {state: trace for state, trace in result.items() if state.translation is None}
                if asking:
                    settled = {state: trace for state, trace in result.items() if state not in asking}
                    result = {**settled, **self._base(base, asking)}
            for state, trace in result.items():
                done.setdefault(state, trace)
            if index == 0 and result.keys() == flow.keys() and len(self.endings) == before:
                break  # none of them did anything, so the order does not matter
        if len(group) > _MOST_EQUAL and (done.keys() != flow.keys() or len(self.endings) != before):
            for state, trace in flow.items():
                self._end("unknown", state, trace, None)
        return done

    def _base(self, base: BaseStage, flow: Flow) -> Flow:
        table, chain, hook = base.table, base.chain, base.hook
        accepted: Flow = {}
        entered = Visit("base", table.family, table.name, chain, legacy=table.legacy)
        translates = hook.type == "nat" and hook.hook in ("postrouting", "input")
        start: Flow = {state: (trace, entered) for state, trace in flow.items()}
        rules = self._rules(table, chain, flow)
        back = self._chain(table, chain, rules, start, accepted, (), translates)
        dropping = hook.policy == "drop"
        end = entered._replace(kind="policy drop" if dropping else "policy accept")
        for state, trace in back.items():
            if dropping:
                self._end("dropped", state, trace, end)
            else:
                accepted.setdefault(state, (trace, end))
        return accepted

    def _chain(
        self,
        table: Table,
        chain: str,
        rules: Sequence[tuple[int, Rule]],
        flow: Flow,
        accepted: Flow,
        stack: tuple[str, ...],
        translates: bool,
    ) -> Flow:
        """Walk a chain; what comes back goes on behind the rule that called it, or meets the policy."""
        self.chains.add((table.family, table.name, chain))
        back: Flow = {}
        stack = (*stack, chain)
        self._budget -= 1
        for number, rule in rules:
            self._budget -= len(flow)
            if self._budget < 0 or len(flow) > _MOST_STATES:
                raise TooMuchError(self.chains)
            if self._passes_by(rule, flow):
                continue
            rest: Flow = {}
            here = RuleInProgress(table, chain, rule.number or number, rule, rest, back, accepted, stack, translates)
            for state, trace in flow.items():
                self._rule(here, state, trace, rule.steps)
            flow = rest
            if not flow:
                break
        for state, trace in flow.items():
            back.setdefault(state, trace)
        return back

    def _passes_by(self, rule: Rule, flow: Flow) -> bool:
        """Whether the rule certainly has no effect: most have none, and this is quick to see."""
        for state in flow:
            context = self._context(state)
            for step in rule.steps:
                if not isinstance(step, Match):
                    return False
                truth = step.check(context)
                if truth is None:
                    return False
                if truth is False:
                    break
            else:
                return False
        return True

    def _rule(self, here: RuleInProgress, state: WalkState, trace: Trace, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Mark | ConnMark):  # of these, each answer says something about the bits
                passed, failed = with_mark(step, state)
                if passed is not None and failed is not None:
                    trace = (trace, here.visit("unknown", step=step))
                    passed = passed if self._takes(here, True) else None
                    failed = failed if self._takes(here, False) else None
                if failed is not None:
                    here.rest.setdefault(failed, trace)
                if passed is None:
                    return
                state = passed
            elif isinstance(step, Match):
                truth = step.check(self._context(state))
                if truth is True:
                    continue
                if truth is False:
                    here.rest.setdefault(state, trace)
                    return
                trace = (trace, here.visit("unknown", step=step))
                if self._takes(here, False):
                    here.rest.setdefault(state, trace)
                if not self._takes(here, True):
                    return
            elif isinstance(step, CHANGES):
                if isinstance(step, SetProperty) and step.name == ZONE:
                    trace = (trace, here.visit("zone", step=step))
                state = changed(step, state)
            elif isinstance(step, NoTrack):
                if state.ct_state == "INVALID":  # conntrack has not seen it, or could not make sense of it
                    state = state._replace(ct_state="UNTRACKED")
                    trace = (trace, here.visit("notrack"))
            elif isinstance(step, OneOf):
                self._one_of(here, step, state, (trace, here.visit("unknown", step=step)))
                return
            elif not isinstance(step, Silent):
                self._verdict(here, step, state, trace)
                return
        here.rest.setdefault(state, trace)

    def _takes(self, here: RuleInProgress, way: bool) -> bool:
        """Whether an open condition is followed that way: both ways, unless somebody asks what one would give."""
        return self._assumed is None or self._assumed != (*here.place, not way)

    def _one_of(self, here: RuleInProgress, choice: OneOf, state: WalkState, trace: Trace) -> None:
        if not choice.exhaustive and self._takes(here, False):
            here.rest.setdefault(state, trace)
        for way in choice.ways if self._takes(here, True) else ():
            self._rule(here, state, trace, way)

    def _verdict(self, here: RuleInProgress, step: object, state: WalkState, trace: Trace) -> None:
        """Apply an effect that ends the rule."""
        match step:
            case Accept():
                here.accepted.setdefault(state, (trace, here.visit("accept")))
            case Return():
                here.back.setdefault(state, (trace, here.visit("return")))
            case Drop():
                self._end("dropped", state, trace, here.visit("drop"))
            case Reject():
                self._end("dropped", state, trace, here.visit("reject"))
            case Jump(name):
                for after, way in self._call(here, name, state, (trace, here.visit("jump", name))).items():
                    here.rest.setdefault(after, way)
            case Goto(name):
                for after, way in self._call(here, name, state, (trace, here.visit("goto", name))).items():
                    here.back.setdefault(after, way)
            case Masquerade() | Snat() if here.translates:
                how: Literal["masquerade", "snat"] = "masquerade" if isinstance(step, Masquerade) else "snat"
                table, chain = here.table, here.chain
                translation = Translation(table.family, table.name, chain, here.number, how, step)
                after = state._replace(translation=translation)
                here.accepted.setdefault(after, (trace, here.visit(how)))
            case Dnat(text):
                self._end("unknown", state, trace, here.visit("dnat", text))
            case OpaqueAction(text):
                self._end("unknown", state, trace, here.visit("opaque", text))
            case _:
                self._end("unknown", state, trace, here.visit("opaque", f"{type(step).__name__} in this chain"))

    def _call(self, here: RuleInProgress, name: str, state: WalkState, trace: Trace) -> Flow:
        table = here.table
        if name not in table.chains:
            problem = f"there is no chain {name}"
        elif name in here.stack:
            problem = f"{name} calls itself"
        elif len(here.stack) >= _DEEPEST:
            problem = "jumps are nested too deep"
        else:
            rules = self._rules(table, name, (state,))
            return self._chain(table, name, rules, {state: trace}, here.accepted, here.stack, here.translates)
        self._end("unknown", state, trace, here.visit("opaque", problem))
        return {}

    def _end(self, kind: Literal["dropped", "unknown"], state: WalkState, trace: Trace, visit: Visit | None) -> None:
        key = (kind, state, visit[:5] if visit is not None else None)
        if key not in self.endings:
            path = unwind(trace if visit is None else (trace, visit))
            connection = state.ct_mark, state.ct_unknown
            self.endings[key] = Ending(kind, path, state.translation, state.mark, state.unknown, connection, state.zone)
