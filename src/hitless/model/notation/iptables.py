"""A rule in iptables' notation, as iptables-save writes it: the head's options, then matches, then the target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.model.matches.base import span
from hitless.model.rules import (
    Accept,
    Action,
    ConntrackTemplate,
    Destination,
    Dnat,
    Drop,
    Goto,
    InInterface,
    Jump,
    Masquerade,
    Match,
    MoveMark,
    NoTrack,
    OneOf,
    OpaqueAction,
    OutInterface,
    Protocol,
    Reject,
    Return,
    SetConnMark,
    SetMark,
    SetProperty,
    Silent,
    Snat,
    Source,
    Step,
    UnknownMark,
)

__all__ = ["text"]

_HEAD = (Source, Destination, InInterface, OutInterface, Protocol)


def text(steps: Sequence[Step], around: Iterable[Step] = ()) -> str:
    """The steps in one line; ``around``: other steps of their rule."""
    protocol = next((step.number for step in (*steps, *around) if isinstance(step, Protocol) and not step.negated), 0)
    ordered = sorted(steps, key=lambda step: _HEAD.index(type(step)) if type(step) in _HEAD else len(_HEAD))
    found: list[str] = []
    module = ""
    for step in ordered:
        needs, shown = step.iptables(protocol) if isinstance(step, Match) else ("", _effect(step))
        if needs and needs != module:
            found.append(f"-m {needs}")
        module = needs
        if shown:
            found.append(shown)
    return " ".join(found)


def _effect(step: Action) -> str:
    match step:
        case Accept() | Drop() | Return():
            return f"-j {type(step).__name__.upper()}"
        case Reject(how):
            return f"-j REJECT --reject-with {_answer(how)}" if how else "-j REJECT"
        case Jump(chain):
            return f"-j {chain}"
        case Goto(chain):
            return f"-g {chain}"
        case Masquerade(ports=ports):
            return "-j MASQUERADE" + ("" if ports is None else f" --to-ports {span(*ports)}") + _options(step)
        case Snat():
            return f"-j SNAT --to-source {step.to_source}{_options(step)}"
        case Dnat(text) if text.startswith("redirect"):
            return "-j REDIRECT" + (f" --to-ports {text.partition(':')[2]}" if ":" in text else "")
        case Dnat(text):
            return f"-j DNAT --to-destination {text}" if text else "-j DNAT"
        case NoTrack():
            return "-j CT --notrack"
        case SetMark(value, mask):
            return f"-j MARK --set-xmark {value:#x}/{mask:#x}"
        case SetConnMark(value, mask):
            return f"-j CONNMARK --set-xmark {value:#x}/{mask:#x}"
        case MoveMark():
            return f"-j CONNMARK {_moved(step)}"
        case UnknownMark(mask, _, text):
            return text or f"-j HMARK (bits {mask:#x})"
        case OneOf(text=text) | ConntrackTemplate(text=text) | Silent(text) | SetProperty(_, text) | OpaqueAction(text):
            return text
        case _:
            raise AssertionError(step)


def _answer(how: str) -> str:
    """iptables-nft may contain a reject written by nft."""
    return how.replace("icmpv6 ", "icmp6-").replace("icmp ", "icmp-").replace(" ", "-")


def _options(step: Masquerade | Snat) -> str:
    return (
        (" --random" if step.random else "")
        + (" --random-fully" if step.random_fully else "")
        + (" --persistent" if step.persistent and isinstance(step, Snat) else "")
    )


def _moved(step: MoveMark) -> str:
    how = "--restore-mark" if step.restore else "--save-mark"
    packet, connection = (step.cleared, step.taken) if step.restore else (step.taken, step.cleared)
    shift = "" if not step.shift else f" --{'left' if step.shift > 0 else 'right'}-shift-mark {abs(step.shift)}"
    return f"{how} --nfmask {packet:#x} --ctmask {connection:#x}{shift}"
