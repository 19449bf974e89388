"""Conditions on the marks of a packet and of its connection.

Rules on the path change marks, and a bit may be unknown; a walk then follows both results, with the bits that each
implies (``semantics.walk_state``). ``check`` only compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model.matches.base import NOTHING, Distinctions, Match, MatchContext
from hitless.model.matches.native import Compare, Form, host, meta

__all__ = ["ConnMark", "Mark", "equals"]

_ALL = 0xFFFFFFFF
_META_MARK = 3  # NFT_META_MARK


def equals(value: int, mask: int, mark: int, unknown: int) -> bool | None:
    """Whether a mark, some bits of which are not known, is ``value`` under ``mask``."""
    if value & ~mask or (mark ^ value) & mask & ~unknown:
        return False
    return None if unknown & mask else True


def _xtables(value: int, mask: int, negated: bool) -> str:
    shown = f"{value:#x}" if mask == _ALL else f"{value:#x}/{mask:#x}"
    return f"{'! ' if negated else ''}--mark {shown}"


def _nft(value: int, mask: int, negated: bool) -> str:
    if mask == _ALL:
        return f"{'!= ' if negated else ''}{value:#010x}"
    return f"& {mask:#010x} {'!=' if negated else '=='} {value:#010x}"


@dataclass(frozen=True, slots=True)
class Mark(Match):
    """``packet mark & mask == value``."""

    value: int
    mask: int = _ALL
    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """By the known bits."""
        matched = equals(self.value, self.mask, context.state.mark, context.state.unknown)
        return None if matched is None else matched is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_mark."""
        return "mark", _xtables(self.value, self.mask, self.negated)

    def nft(self, protocol: int) -> str:
        """With eight digits, as nft writes them."""
        return f"meta mark {_nft(self.value, self.mask, self.negated)}"

    def distinguishes_flows(self) -> Distinctions:
        """By no address and no port."""
        return NOTHING

    def distinguishes_pods(self) -> Distinctions:
        """A pod's first packet has no mark."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """A value with bits outside of the mask never matches."""
        if self.value & ~self.mask:
            return [()] if self.negated else []
        mask = None if self.mask == _ALL else host(self.mask)
        return [(Compare(meta(_META_MARK), host(self.value), self.negated, mask),)]


@dataclass(frozen=True, slots=True)
class ConnMark(Match):
    """``connection mark & mask == value``; without a connection it does not hold, negated or not."""

    value: int
    mask: int = _ALL
    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """By the known bits."""
        state = context.state
        if state.ct_state == "TEMPLATE":
            return None
        if not state.connected:
            return False
        matched = equals(self.value, self.mask, state.ct_mark, state.ct_unknown)
        return None if matched is None else matched is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_connmark."""
        return "connmark", _xtables(self.value, self.mask, self.negated)

    def nft(self, protocol: int) -> str:
        """With eight digits, as nft writes them."""
        return f"ct mark {_nft(self.value, self.mask, self.negated)}"

    def distinguishes_flows(self) -> Distinctions:
        """By no address and no port."""
        return NOTHING

    def distinguishes_pods(self) -> Distinctions:
        """A new connection has no mark."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """A copy runs in another place than the original, where the mark may differ."""
        raise self.inexact()
