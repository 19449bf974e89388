"""Conditions on what conntrack says of a packet."""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model.matches.base import NOTHING, Distinctions, Inexact, Match, MatchContext
from hitless.model.matches.native import Compare, Form, ct, host

__all__ = ["CtState"]

_XTABLES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")
_NFT = ("INVALID", "ESTABLISHED", "RELATED", "NEW", "UNTRACKED", "SNAT", "DNAT")
_STATE, _STATUS = 0, 2  # NFT_CT_STATE, NFT_CT_STATUS
_STATE_BITS = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}
_STATUS_BITS = {"SNAT": 16, "DNAT": 32}
_NAT = frozenset(_STATUS_BITS)


@dataclass(frozen=True, slots=True)
class CtState(Match):
    """The connection's conntrack state is one of ``states`` (NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED), or it is
    source- or destination-translated (SNAT, DNAT: nft's ``ct status snat``, xtables' ``--ctstate SNAT``)."""

    states: frozenset[str]
    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """A reply belongs to a flow whose source was translated."""
        states, state, reply = self.states, context.state.ct_state, context.packet.reply
        known = state not in ("INVALID", "UNTRACKED")
        if state == "TEMPLATE":  # rules see the template of a new connection
            return None if states & _NAT else ("NEW" in states) is not self.negated
        matched: bool | None = state in states or ("SNAT" in states and (context.translated or (reply and known)))
        if reply and known:
            return matched is not self.negated
        if not matched and states & _NAT and state not in ("NEW", "UNTRACKED", "INVALID"):
            matched = None  # an older flow may have been translated by its first packet
        if self.negated and states & _NAT and state in ("INVALID", "UNTRACKED"):
            return None  # without a connection nft's expression ends the rule, xtables' does not
        return None if matched is None else matched is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_conntrack."""
        names = ",".join(state for state in _XTABLES if state in self.states)
        return "conntrack", f"{'! ' if self.negated else ''}--ctstate {names}"

    def nft(self, protocol: int) -> str:
        """nft has another key for translations."""
        names = ",".join(state.lower() for state in _NFT if state in self.states)
        kind = "status" if self.states & _NAT else "state"
        return f"ct {kind} {('!= ' if len(self.states) == 1 else '! ') if self.negated else ''}{names}"

    def distinguishes_flows(self) -> Distinctions:
        """By no address and no port."""
        return NOTHING

    def distinguishes_pods(self) -> Distinctions:
        """By nothing of the pod."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """``& mask != 0`` means "one of"; a packet without connection has INVALID's bit."""
        names = self.states
        for bits, key in ((_STATE_BITS, _STATE), (_STATUS_BITS, _STATUS)):
            if names and names <= bits.keys():
                mask = host(sum(bits[name] for name in names))
                return [(Compare(ct(key), host(0), not self.negated, mask),)]
        raise Inexact(f"conntrack states {', '.join(sorted(names))} together")
