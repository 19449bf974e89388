"""Conditions that are text: comments, and what is not understood."""

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
        """Nothing here: nft shows a rule's comment last."""
        return ""

    def distinguishes_flows(self) -> Distinctions:
        """By nothing."""
        return NOTHING

    def distinguishes_pods(self) -> Distinctions:
        """By nothing."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """It is no condition for the kernel."""
        return [()]


@dataclass(frozen=True, slots=True)
class Opaque(Match):
    """A condition whose answer nobody knows beforehand (a rate, a clock, a payload), or that the reader does not
    understand; ``text`` is the condition as its tool writes it, else what was seen of it."""

    text: str

    def check(self, context: MatchContext) -> bool | None:
        """Cannot tell."""
        return None

    def iptables(self, protocol: int) -> tuple[str, str]:
        """Its own text; iptables-nft writes a rate as nft's own expression."""
        words = self.text  # nft's
        if words.startswith(_LIMIT):
            rate, _, burst = words.removeprefix(_LIMIT).removesuffix(" packets").partition(" burst ")
            return "limit", f"--limit {rate}" + (f" --limit-burst {burst}" if burst else "")
        return "", words

    def nft(self, protocol: int) -> str:
        """Its own text."""
        return self.text

    def distinguishes_flows(self) -> Distinctions:
        """By anything."""
        return ALONE

    def distinguishes_pods(self) -> Distinctions:
        """Open for every pod."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """What is not understood is not copied."""
        raise self.inexact()
