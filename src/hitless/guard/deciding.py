"""Deliberate change or damage: what the standby should do after each change of the primary's rules.

Problem: rules that are gone may be a gap to be bridged or a decision to be followed. Promise, by one principle: *a rule
that says "do not translate" is a statement and is followed at once; a rule that is missing is damage and is bridged
until somebody states otherwise.* In full (docs/guard.md, tests/unit/guard/test_deciding.py):

1. Every pod network is carried: the rules are whole. The standby follows at once; if damage comes within ``settle``
   seconds, it goes back to the standby before it (rules half-written by an agent that died while writing).
2. The rules are the standby's plus exemptions (RETURN, ACCEPT in front): followed at once, also when nothing is left.
3. Some pod networks lost their translation, others keep it: damage for ``partial`` seconds (two of flannel's resyncs),
   then a decision (a pool without NAT).
4. All lost: damage, for however long, unless the agent itself says that masquerading is off (``statements``).
5. Rules that have no exact copy, for ``settle`` seconds: the standby withdraws, since it cannot know what it may do.
6. A withdrawal ends when its reason ends: no statement that masquerading is off for ``settle`` seconds, or the rules
   without an exact copy are gone within ``partial`` seconds. The standby of before the withdrawal is installed again.
7. The unknown changes nothing: a network of which the evaluator cannot tell whether it is carried is kept.

Time comes in as an argument. Never touches the kernel. Next stage: ``standby_table``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from hitless.guard.reasons import NOTHING, Code, Reason
from hitless.guard.standby_rules import StandbyRules
from hitless.guard.statements import Statement
from hitless.model.families import Network, within
from hitless.model.rules import Masquerade, Rule, Snat

__all__ = ["Decider", "Decision", "Limits", "extends"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; each with its reason above."""

    settle: float = 1.0
    partial: float = 10.0
    ask: float = 2.0  # between readings of whether masquerading is still stated to be off: each goes through /proc


@dataclass(frozen=True, slots=True)
class Decision:
    """``keep`` what is installed, ``install`` ``standby``, or ``withdraw`` (an empty standby). ``again``: decide once
    more at that time although nothing happened."""

    action: Literal["keep", "install", "withdraw"]
    why: Reason
    standby: StandbyRules | None = None
    again: float | None = None


class Decider:
    """One family's state: the standby before (``proven``), the ``installed`` one, and since when rules are missing."""

    def __init__(self, limits: Limits | None = None, installed: StandbyRules | None = None) -> None:
        self.limits = limits or Limits()
        self.installed = installed
        self.proven = installed
        self._candidate_since: float | None = None
        self._lost_since: float | None = None
        self._unclear_since: float | None = None
        self._given_up: _GivenUp | None = None
        self._gave_up = False  # and nothing is installed since then

    @property
    def withdrawn(self) -> bool:
        """Whether a standby was given up, for a reason that may end."""
        return self.installed is None and self._given_up is not None

    def whole(self, seen: StandbyRules) -> bool:
        """Whether the primary, as seen, carries at least what the standby does."""
        return bool(seen.places) and (self.installed is None or _covers(seen, self.installed.networks))

    def unclear(self, reason: str, now: float) -> Decision:
        """The primary's rules have no exact copy."""
        if self._unclear_since is None:
            self._unclear_since = now
        if self.installed is None:
            return Decision("keep", Reason(Code.NO_EXACT_COPY, detail=reason))
        due = self._unclear_since + self.limits.settle
        if now < due:
            return Decision("keep", Reason(Code.NO_EXACT_COPY_YET, detail=reason), again=due)
        self._give_up(self._unclear_since, stated=False)
        return Decision("withdraw", Reason(Code.NO_EXACT_COPY, detail=reason))

    def see(self, seen: StandbyRules, now: float, stated: Callable[[], Statement | None]) -> Decision:
        """The primary's rules mean ``seen`` now. ``stated`` is called only when everything is lost."""
        self._unclear_since = None
        if self.installed is None:
            if seen.places:
                return self._follow(seen, now, Reason(Code.LEARNED))
            return self._without(seen, now, stated)
        if self.whole(seen):
            return self._whole(seen, now)
        if self._lost_since is None:
            self._lost_since = now
        if extends(seen, self.installed):
            return self._follow(seen, now, Reason(Code.EXEMPTION_ADDED), at_once=True)
        if unknown := [n for n in self.installed.networks if not _covers(seen, (n,)) and _within_any(n, seen.doubtful)]:
            return self._hold(now, Reason(Code.CANNOT_TELL_WHETHER_TRANSLATED, tuple(unknown)), None)
        if seen.places:
            due = self._lost_since + self.limits.partial
            if now >= due:
                return self._follow(seen, now, Reason(Code.PARTLY_TAKEN_AWAY))
            return self._hold(now, Reason(Code.PARTLY_MISSING), due)
        statement = stated()
        if statement is not None and not statement.masquerade:
            self._give_up(now, stated=True)
            again = now + self.limits.ask
            return Decision("withdraw", Reason(Code.SWITCHED_OFF, detail=statement.source), again=again)
        return self._hold(now, Reason(Code.RULES_MISSING), None)

    def _without(self, seen: StandbyRules, now: float, stated: Callable[[], Statement | None]) -> Decision:
        """Nothing is installed, and the rules carry nothing: what was given up comes back when the reason has ended."""
        if self._given_up is None:
            return self._waiting(now, stated)
        if self._given_up.stated:
            statement = stated()
            if statement is not None and not statement.masquerade:
                self._given_up.since = None
                why = Reason(Code.SWITCHED_OFF, detail=statement.source)
                return Decision("keep", why, again=now + self.limits.ask)
            if self._given_up.since is None:
                self._given_up.since = now
            due = self._given_up.since + self.limits.settle
            if now < due:
                return Decision("keep", Reason(Code.STATEMENT_GONE), again=due)
            why = Reason(Code.STATEMENT_ENDED)
        else:
            since = self._given_up.since
            if since is None or now - since > self.limits.partial:
                self._given_up = None  # they lasted long enough to be the primary's decision
                return self._waiting(now, stated)
            why = Reason(Code.INEXACT_RULES_GONE)
        self.installed = self.proven = self._given_up.standby
        self._given_up, self._gave_up = None, False
        decision = self.see(seen, now, stated)
        return Decision("install", why, self.installed, decision.again) if decision.action == "keep" else decision

    def _waiting(self, now: float, stated: Callable[[], Statement | None]) -> Decision:
        """Nothing comes back. After a withdrawal the reason tells whether missing rules are a gap of the primary."""
        statement = stated() if self._gave_up else None
        if statement is not None and not statement.masquerade:
            return Decision("keep", Reason(Code.SWITCHED_OFF, detail=statement.source), again=now + self.limits.ask)
        return Decision("keep", NOTHING)

    def _whole(self, seen: StandbyRules, now: float) -> Decision:
        self._lost_since = None
        assert self.installed is not None
        if seen != self.installed:
            return self._follow(seen, now, Reason(Code.PRIMARY_CHANGED))
        if self._candidate_since is not None:
            due = self._candidate_since + self.limits.settle
            if now < due:
                return Decision("keep", Reason(Code.NOT_YET_PROVEN), again=due)
            self.proven, self._candidate_since = self.installed, None
        return Decision("keep", Reason(Code.WHOLE))

    def _follow(self, seen: StandbyRules, now: float, why: Reason, *, at_once: bool = False) -> Decision:
        if self.proven is None or at_once:
            self.proven, self._candidate_since = seen, None
        elif seen == self.proven:
            self._candidate_since = None
        else:
            self._candidate_since = now
        self.installed = seen
        self._lost_since = self._given_up = None
        self._gave_up = False
        again = None if self._candidate_since is None else now + self.limits.settle
        return Decision("install", why, seen, again)

    def _hold(self, now: float, why: Reason, due: float | None) -> Decision:
        """Bridge; an unproven standby is replaced by the one before it."""
        if self._candidate_since is not None:
            young = now - self._candidate_since < self.limits.settle
            self._candidate_since = None
            if young and self.proven is not None and self.proven != self.installed:
                self.installed = self.proven
                return Decision("install", replace(why, restored=True), self.proven, due)
            self.proven = self.installed
        return Decision("keep", why, again=due)

    def _give_up(self, since: float | None, *, stated: bool) -> None:
        proven = self.proven if self._candidate_since is not None else self.installed
        self._given_up = _GivenUp(proven, None if stated else since, stated) if proven is not None else None
        self.installed, self.proven, self._gave_up = None, None, True
        self._candidate_since = self._lost_since = self._unclear_since = None


@dataclass(slots=True)
class _GivenUp:
    """The standby before a withdrawal. ``stated``: withdrawn for a statement, and ``since`` is when that was gone; else
    for rules without an exact copy, and ``since`` is when they appeared."""

    standby: StandbyRules
    since: float | None
    stated: bool


def _covers(seen: StandbyRules, networks: tuple[Network, ...]) -> bool:
    return all(_within_any(network, seen.networks) for network in networks)


def _within_any(network: Network, others: tuple[Network, ...]) -> bool:
    return any(within(network, other) for other in others)


def extends(seen: StandbyRules, before: StandbyRules) -> bool:
    """Whether ``seen`` has every rule of ``before``, in order, and beside them only rules that exempt."""
    now = {chain.name: chain for chain in seen.chains}
    old = {chain.name: chain for chain in before.chains}
    if not before.chains or not old.keys() <= now.keys():
        return False
    exempting: set[str] = set()
    for name, chain in now.items():
        if name in old and chain.hook != old[name].hook:
            return False
        added = _added(chain.rules, old[name].rules if name in old else ())
        if added is None or any(isinstance(step, Masquerade | Snat) for rule in added for step in rule.steps):
            return False
        if added:
            exempting.add(name)
    return bool(exempting)


def _added(rules: tuple[Rule, ...], before: tuple[Rule, ...]) -> list[Rule] | None:
    """The rules that are not in ``before``; ``None`` when ``before`` is not a subsequence."""
    added, rest = [], list(before)
    for rule in rules:
        if rest and rule == rest[0]:
            rest.pop(0)
        else:
            added.append(rule)
    return None if rest else added
