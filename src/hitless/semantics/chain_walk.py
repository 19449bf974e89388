"""Applying the rules of chains to a packet whose state is partly unknown.

Promise: every rule is applied to a whole *flow*, the set of states (mark, translation, …) that the packet can be in. A
condition that is not known lets a state both match and not match; equal states merge, so that the work grows with rules
times states and not with the number of unknown conditions. Bounds on nesting, states and rules end the walk for any
input. Sources: nft(8), iptables(8), and the kernel's nf_tables_core.c and ip_tables.c. Next stage: ``walk``, which
orders the chains of the hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    Silent,
    Snat,
    Step,
    Table,
)
from hitless.model.surroundings import Surroundings
from hitless.semantics.contexts import header_of
from hitless.semantics.outcome import ChainName, Ending, Translation, Visit
from hitless.semantics.properties import EvaluationContext
from hitless.semantics.stages import BaseStage, RuleInProgress
from hitless.semantics.walk_state import CHANGES, Flow, Trace, WalkState, changed, unwind, with_mark

__all__ = ["Assumption", "ChainWalk", "TooMuchError"]

Assumption = tuple[str, str, bool, str, int, bool]
"""A rule (``Visit.place``) whose unknown conditions are assumed to hold (true), or not to."""

_MOST_RULES = 200_000  # about half a second; 5,000 Services in one linear chain are far below it
_MOST_STATES = 256
_DEEPEST = 128  # nf_tables allows 16 jumps; iptables-legacy as many as there are chains


class TooMuchError(Exception):
    """A bound of the walk was exceeded; never leaves ``semantics``. ``chains`` are those walked so far."""

    def __init__(self, chains: Iterable[ChainName]) -> None:
        super().__init__()
        self.chains = frozenset(chains)


class ChainWalk:
    """Walks chains for one packet. ``endings``: where states of the packet ended (dropped, or unknown) so far;
    ``chains``: the chains that were walked."""

    def __init__(self, node: Surroundings | None, out_interface: str, assumed: Assumption | None) -> None:
        """``out_interface``: the one by which the packet will leave, also at prerouting, where rules do not see it.
        ``assumed``: only the consequences of this assumption are followed."""
        self.endings: dict[tuple[object, ...], Ending] = {}
        self.chains: set[ChainName] = set()
        self._node, self._out_interface, self._assumed = node, out_interface, assumed
        self._budget = _MOST_RULES
        self._last_context: EvaluationContext | None = None

    def at(self, hook: str, packet: Packet) -> None:
        """The rules from here on are at ``hook``, and see the packet like this."""
        self.hook, self.packet = hook, packet

    def _context(self, state: WalkState) -> EvaluationContext:
        context = self._last_context  # most flows have one state
        if context is None or context.state is not state or context.packet is not self.packet:
            context = EvaluationContext(self.packet, state, self.hook, self._node, self._out_interface)
            self._last_context = context
        return context

    def _rules(self, table: Table, chain: str, states: Iterable[WalkState]) -> Sequence[tuple[int, Rule]]:
        """The rules that the packet may match in any of these states."""
        contexts = [self._context(state) for state in states]
        return table.rules_for(chain, header_of(self.packet, self.hook, contexts))

    def base(self, base: BaseStage, flow: Flow) -> Flow:
        """Walk a base chain; returns the states that it accepts."""
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
                self.end("dropped", state, trace, end)
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
        """Walk a chain; returns the states that leave it at its end or by RETURN."""
        self.chains.add((table.family, table.name, chain))
        back: Flow = {}
        stack = (*stack, chain)
        self._budget -= 1
        for number, rule in rules:
            self._budget -= len(flow)
            if self._budget < 0 or len(flow) > _MOST_STATES:
                raise TooMuchError(self.chains)
            if self._certainly_skipped(rule, flow):
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

    def _certainly_skipped(self, rule: Rule, flow: Flow) -> bool:
        """Whether the rule certainly does not match: this is so for most rules, and checked quickly."""
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
            if isinstance(step, Mark | ConnMark):  # either result determines bits of the mark
                passed, failed = with_mark(step, state)
                if passed is not None and failed is not None:
                    trace = (trace, here.visit("unknown", step=step))
                    passed = passed if self._follows(here, True) else None
                    failed = failed if self._follows(here, False) else None
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
                if self._follows(here, False):
                    here.rest.setdefault(state, trace)
                if not self._follows(here, True):
                    return
            elif isinstance(step, CHANGES):
                before, state = state, changed(step, state)
                if before.zone != state.zone:
                    trace = (trace, here.visit("zone", step=step))
            elif isinstance(step, NoTrack):
                if state.ct_state == "INVALID":  # conntrack has not seen it, or found it invalid
                    state = state._replace(ct_state="UNTRACKED")
                    trace = (trace, here.visit("notrack"))
            elif isinstance(step, OneOf):
                self._one_of(here, step, state, (trace, here.visit("unknown", step=step)))
                return
            elif not isinstance(step, Silent):
                self._verdict(here, step, state, trace)
                return
        here.rest.setdefault(state, trace)

    def _follows(self, here: RuleInProgress, holds: bool) -> bool:
        """Whether to go on as if an unknown condition holds (or not): both, unless one of them is assumed."""
        return self._assumed is None or self._assumed != (*here.place, not holds)

    def _one_of(self, here: RuleInProgress, choice: OneOf, state: WalkState, trace: Trace) -> None:
        if not choice.exhaustive and self._follows(here, False):
            here.rest.setdefault(state, trace)
        for way in choice.alternatives if self._follows(here, True) else ():
            self._rule(here, state, trace, way)

    def _verdict(self, here: RuleInProgress, step: object, state: WalkState, trace: Trace) -> None:
        """Apply an effect that ends the rule."""
        match step:
            case Accept():
                here.accepted.setdefault(state, (trace, here.visit("accept")))
            case Return():
                here.back.setdefault(state, (trace, here.visit("return")))
            case Drop():
                self.end("dropped", state, trace, here.visit("drop"))
            case Reject():
                self.end("dropped", state, trace, here.visit("reject"))
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
                self.end("unknown", state, trace, here.visit("dnat", text))
            case OpaqueAction(text):
                self.end("unknown", state, trace, here.visit("opaque", text))
            case _:
                self.end("unknown", state, trace, here.visit("opaque", f"{type(step).__name__} in this chain"))

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
        self.end("unknown", state, trace, here.visit("opaque", problem))
        return {}

    def end(self, kind: Literal["dropped", "unknown"], state: WalkState, trace: Trace, visit: Visit | None) -> None:
        """A state of the packet ends at ``visit``."""
        key = (kind, state, visit[:5] if visit is not None else None)
        if key not in self.endings:
            path = unwind(trace if visit is None else (trace, visit))
            connection = state.ct_mark, state.ct_unknown
            self.endings[key] = Ending(kind, path, state.translation, state.mark, state.unknown, connection, state.zone)
