"""Deliberate change or damage: what the standby should say after each change of the primary's rules.

Problem: rules that are gone may be a gap to be bridged or a decision to be followed. Promise, by one principle: *a rule
that says "do not translate" is a statement and is followed at once; a rule that is missing is damage and is bridged
until somebody states otherwise.* In full (docs/guard.md, tests/unit/guard/test_deciding.py):

1. Every pod network is carried: the rules are whole. The standby follows at once; if damage comes within ``settle``
   seconds, it goes back to what had stood before (rules half-written by an agent that died on the way).
2. The rules are the standby's plus exemptions (RETURN, ACCEPT in front): followed at once, also when nothing is left.
3. Some pod networks lost their translation, others keep it: damage for ``partial`` seconds (two of flannel's resyncs),
   then a decision (a pool without NAT).
4. All lost: damage, for however long, unless the agent itself says that masquerading is off (``statements``).
5. Rules that have no exact copy, for ``settle`` seconds: the standby withdraws, since it cannot know what it may do.

Time comes in as an argument. Never touches the kernel. Next stage: ``standing``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hitless.guard.learning import Standby
from hitless.guard.statements import Statement
from hitless.model.families import Network
from hitless.model.rules import Masquerade, Rule, Snat

__all__ = ["Decider", "Decision", "Limits", "extends"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; each with its reason above."""

    settle: float = 1.0
    partial: float = 10.0


@dataclass(frozen=True, slots=True)
class Decision:
    """``keep`` what stands, ``install`` ``standby``, or ``withdraw`` (an empty standby). ``again``: look once more at
    that time although nothing happened."""

    action: Literal["keep", "install", "withdraw"]
    why: str
    standby: Standby | None = None
    again: float | None = None


class Decider:
    """One family's memory: what stood before (``proven``), what is ``installed``, and since when something is amiss."""

    def __init__(self, limits: Limits | None = None, installed: Standby | None = None) -> None:
        self.limits = limits or Limits()
        self.installed = installed
        self.proven = installed
        self._candidate_since: float | None = None
        self._lost_since: float | None = None
        self._unclear_since: float | None = None

    def whole(self, seen: Standby) -> bool:
        """Whether the primary, as seen, carries at least what the standby does."""
        return bool(seen.places) and (self.installed is None or _covers(seen, self.installed.networks))

    def unclear(self, reason: str, now: float) -> Decision:
        """The primary's rules have no exact copy."""
        if self._unclear_since is None:
            self._unclear_since = now
        if self.installed is None:
            return Decision("keep", f"cannot tell what the primary means: {reason}")
        due = self._unclear_since + self.limits.settle
        if now < due:
            return Decision("keep", f"cannot tell yet what the primary means: {reason}", again=due)
        self._forget()
        return Decision("withdraw", f"cannot tell what the primary means: {reason}")

    def see(self, seen: Standby, now: float, stated: Callable[[], Statement | None]) -> Decision:
        """The primary's rules mean ``seen`` now. ``stated`` is asked only when everything is lost."""
        self._unclear_since = None
        if self.installed is None:
            if not seen.places:
                return Decision("keep", "no rules to learn from yet")
            return self._follow(seen, now, "learned")
        if self.whole(seen):
            return self._whole(seen, now)
        if self._lost_since is None:
            self._lost_since = now
        if extends(seen, self.installed):
            return self._follow(seen, now, "the primary exempts flows by a rule", at_once=True)
        if seen.places:
            due = self._lost_since + self.limits.partial
            if now >= due:
                return self._follow(seen, now, "translation of some pod networks was taken away, others keep it")
            return self._hold(now, "translation of some pod networks is missing", due)
        statement = stated()
        if statement is not None and not statement.masquerade:
            self._forget()
            return Decision("withdraw", f"masquerading is switched off: {statement.source}")
        return self._hold(now, "the primary's rules are missing", None)

    def _whole(self, seen: Standby, now: float) -> Decision:
        self._lost_since = None
        assert self.installed is not None
        if seen != self.installed:
            return self._follow(seen, now, "the primary changed")
        if self._candidate_since is not None:
            due = self._candidate_since + self.limits.settle
            if now < due:
                return Decision("keep", "whole, not yet proven", again=due)
            self.proven, self._candidate_since = self.installed, None
        return Decision("keep", "whole")

    def _follow(self, seen: Standby, now: float, why: str, *, at_once: bool = False) -> Decision:
        if self.proven is None or at_once:
            self.proven, self._candidate_since = seen, None
        elif seen == self.proven:
            self._candidate_since = None
        else:
            self._candidate_since = now
        self.installed = seen
        self._lost_since = None
        again = None if self._candidate_since is None else now + self.limits.settle
        return Decision("install", why, seen, again)

    def _hold(self, now: float, why: str, due: float | None) -> Decision:
        """Bridge; an unproven standby gives way to the one before it."""
        if self._candidate_since is not None:
            young = now - self._candidate_since < self.limits.settle
            self._candidate_since = None
            if young and self.proven is not None and self.proven != self.installed:
                self.installed = self.proven
                return Decision("install", f"{why}; back to what stood before", self.proven, due)
            self.proven = self.installed
        return Decision("keep", why, again=due)

    def _forget(self) -> None:
        self.installed = self.proven = None
        self._candidate_since = self._lost_since = self._unclear_since = None


def _covers(seen: Standby, networks: tuple[Network, ...]) -> bool:
    return all(any(_inside(network, other) for other in seen.networks) for network in networks)


def _inside(part: Network, whole: Network) -> bool:
    return part.version == whole.version and part.prefixlen >= whole.prefixlen and part.network_address in whole


def extends(seen: Standby, before: Standby) -> bool:
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
