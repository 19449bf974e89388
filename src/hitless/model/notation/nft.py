"""A rule in nft's notation, as ``nft list ruleset`` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.model.matches.base import span
from hitless.model.matches.transport import MODULES, PROTOCOLS
from hitless.model.rules import (
    Accept,
    Action,
    Comment,
    ConntrackTemplate,
    Dnat,
    Drop,
    Goto,
    Jump,
    Masquerade,
    Match,
    MoveMark,
    NoTrack,
    OneOf,
    OpaqueAction,
    Protocol,
    Reject,
    Return,
    SetConnMark,
    SetMark,
    SetProperty,
    Silent,
    Snat,
    Step,
    UnknownMark,
)

__all__ = ["text"]

_ALL = 0xFFFFFFFF


def text(steps: Sequence[Step], around: Iterable[Step] = ()) -> str:
    """The steps in one line; ``around``: other steps of their rule."""
    numbers = [step.number for step in (*steps, *around) if isinstance(step, Protocol) and not step.negated]
    protocol = numbers[0] if numbers else 0
    with_ports = any(isinstance(step, Match) and _names(step, protocol) for step in steps)
    found = []
    for step in steps:
        if isinstance(step, Protocol) and not step.negated and with_ports and protocol in (*MODULES, 1, 58):
            continue  # "tcp dport 53" names the protocol
        found.append(step.nft(protocol) if isinstance(step, Match) else _effect(step))
    # nft writes a rule's comment last
    found += [f'comment "{step.text}"' for step in steps if isinstance(step, Comment)]
    return " ".join(text for text in found if text)


def _names(step: Match, protocol: int) -> bool:
    """Whether a condition's own text names the protocol."""
    name, text = PROTOCOLS.get(protocol), step.nft(protocol)
    return step.names_protocol or (name is not None and (text.startswith(f"{name} ") or f" . {name} " in text))


def _effect(step: Action) -> str:
    match step:
        case Accept() | Drop() | Return():
            return type(step).__name__.lower()
        case Reject(how):
            return "reject" if not how or how.endswith(" port-unreachable") else f"reject with {how}"
        case Jump(chain):
            return f"jump {chain}"
        case Goto(chain):
            return f"goto {chain}"
        case Masquerade(ports=ports):
            return "masquerade" + ("" if ports is None else f" to :{span(*ports)}") + _options(step)
        case Snat(first):
            return f"snat {'ip' if first.version == 4 else 'ip6'} to {step.to_source}{_options(step)}"
        case Dnat(text) if text.startswith("redirect"):
            return "redirect" + (f" to :{text.partition(':')[2]}" if ":" in text else "")
        case Dnat(text):
            return f"dnat to {text}" if text else "dnat"
        case NoTrack():
            return "notrack"
        case SetMark(value, mask):
            return f"meta mark set {_changed('meta mark', value, mask)}"
        case SetConnMark(value, mask):
            return f"ct mark set {_changed('ct mark', value, mask)}"
        case MoveMark():
            to, source = ("meta mark", "ct mark") if step.restore else ("ct mark", "meta mark")
            taken = "" if step.taken == _ALL else f" & {step.taken:#010x}"
            return f"{to} set {source}{taken}" + (f" ^ {step.value:#010x}" if step.value else "")
        case UnknownMark(mask, connection, text):
            return text or f"{'ct' if connection else 'meta'} mark set (bits {mask:#x})"
        case OneOf(text=text) | ConntrackTemplate(text=text) | Silent(text) | SetProperty(_, text) | OpaqueAction(text):
            return text
        case _:
            raise AssertionError(step)


def _changed(what: str, value: int, mask: int) -> str:
    if mask == _ALL:
        return f"{value:#010x}"
    kept = "" if not mask else f" & {~mask & _ALL:#010x}"
    if value & ~mask:
        return f"{what}{kept} ^ {value:#010x}"
    return f"{what}{kept}" + (f" | {value:#010x}" if value or not kept else "")


def _options(step: Masquerade | Snat) -> str:
    names = [
        name
        for given, name in (
            (step.random, "random"),
            (step.random_fully, "fully-random"),
            (step.persistent, "persistent"),
        )
        if given
    ]
    return f" {','.join(names)}" if names else ""
