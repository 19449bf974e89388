"""Conditions that are only text: comments, and what is not understood."""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model.matches.base import ALONE, NOTHING, Distinctions, Match, MatchContext
from hitless.model.matches.native import Form

__all__ = ["Comment", "Opaque"]

_LIMIT = "limit rate "


@dataclass(frozen=True, slots=True)
class Comment(Match):
    """A comment: always matches; kept because owners recognise their rules by it."""

    text: str

    def check(self, context: MatchContext) -> bool | None:
        """Always."""
        return True

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_comment."""
        escaped = self.text.replace("\\", "\\\\").replace('"', '\\"')
        return "comment", f'--comment "{escaped}"'

    def nft(self, protocol: int) -> str:
        """Empty: nft shows a rule's comment last."""
        return ""

    def distinguishes_flows(self) -> Distinctions:
        """By nothing."""
        return NOTHING

    def distinguishes_pods(self) -> Distinctions:
        """By nothing."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """Not a condition for the kernel."""
        return [()]


@dataclass(frozen=True, slots=True)
class Opaque(Match):
    """A condition whose result a packet does not determine (a rate, a clock, a payload), or that the decoder does not
    understand; ``text`` is the condition as its tool writes it, else a description."""

    text: str

    def check(self, context: MatchContext) -> bool | None:
        """Cannot tell."""
        return None

    def iptables(self, protocol: int) -> tuple[str, str]:
        """Its own text; iptables-nft writes a rate as nft's own expression."""
        text = self.text  # in nft's notation
        if text.startswith(_LIMIT):
            rate, _, burst = text.removeprefix(_LIMIT).removesuffix(" packets").partition(" burst ")
            return "limit", f"--limit {rate}" + (f" --limit-burst {burst}" if burst else "")
        return "", text

    def nft(self, protocol: int) -> str:
        """Its own text."""
        return self.text

    def distinguishes_flows(self) -> Distinctions:
        """By anything."""
        return ALONE

    def distinguishes_pods(self) -> Distinctions:
        """Unknown for every pod."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """What is not understood is not copied."""
        raise self.inexact()
