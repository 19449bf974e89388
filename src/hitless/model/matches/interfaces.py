"""Conditions on the interfaces by which a packet comes in and leaves."""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model.matches.base import NOTHING, Distinctions, Inexact, Match, MatchContext
from hitless.model.matches.native import Compare, Form, meta

__all__ = ["InInterface", "OutInterface"]

_IN_NAME, _OUT_NAME = 6, 7  # NFT_META_IIFNAME, NFT_META_OIFNAME


def _is(name: str, pattern: str, negated: bool) -> bool | None:
    if not name:
        return None
    matched = name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern
    return matched is not negated


def _quoted(pattern: str) -> str:
    return f'"{pattern[:-1]}*"' if pattern.endswith("+") else f'"{pattern}"'


def _forms(key: int, pattern: str, negated: bool) -> list[Form]:
    if not pattern.endswith("+"):
        return [(Compare(meta(key), pattern.encode().ljust(16, b"\0"), negated),)]
    prefix = pattern[:-1].encode()
    if prefix:
        return [(Compare(meta(key), prefix, negated),)]
    if negated:
        raise Inexact(f"no interface is not {pattern}")
    return [()]


@dataclass(frozen=True, slots=True)
class InInterface(Match):
    """The input interface's name; a trailing ``+`` matches any continuation (as in iptables)."""

    name: str
    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """Unknown if the interface is not known."""
        return _is(context.packet.iif, self.name, self.negated)

    def iptables(self, protocol: int) -> tuple[str, str]:
        """An option in the rule's head."""
        return "", f"{'! ' if self.negated else ''}-i {self.name}"

    def nft(self, protocol: int) -> str:
        """A trailing ``*`` matches any continuation."""
        return f"iifname {'!= ' if self.negated else ''}{_quoted(self.name)}"

    def distinguishes_flows(self) -> Distinctions:
        """Interfaces are part of every key."""
        return NOTHING

    def distinguishes_pods(self) -> Distinctions:
        """By the name."""
        return Distinctions(interfaces=(self.name,))

    def native(self, version: int) -> list[Form]:
        """A prefix is compared with its length, a whole name with its padding."""
        return _forms(_IN_NAME, self.name, self.negated)


@dataclass(frozen=True, slots=True)
class OutInterface(Match):
    """The output interface's name; a trailing ``+`` matches any continuation (as in iptables)."""

    name: str
    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """Unknown if the interface is not known."""
        return _is(context.packet.oif, self.name, self.negated)

    def iptables(self, protocol: int) -> tuple[str, str]:
        """An option in the rule's head."""
        return "", f"{'! ' if self.negated else ''}-o {self.name}"

    def nft(self, protocol: int) -> str:
        """A trailing ``*`` matches any continuation."""
        return f"oifname {'!= ' if self.negated else ''}{_quoted(self.name)}"

    def distinguishes_flows(self) -> Distinctions:
        """Interfaces are part of every key."""
        return NOTHING

    def distinguishes_pods(self) -> Distinctions:
        """By the name: a reply leaves by the pod's interface."""
        return Distinctions(interfaces=(self.name,))

    def native(self, version: int) -> list[Form]:
        """A prefix is compared with its length, a whole name with its padding."""
        return _forms(_OUT_NAME, self.name, self.negated)
