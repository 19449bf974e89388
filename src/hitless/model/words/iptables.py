"""A rule in the words of iptables, as iptables-save writes them: the head's options, then matches, then the target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.model.rules import (
    Accept,
    AddrType,
    AnyOf,
    Comment,
    ConnMark,
    CtState,
    Destination,
    DestinationPort,
    Dnat,
    Drop,
    Element,
    Goto,
    IcmpType,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    MoveMark,
    NoTrack,
    OneOf,
    Opaque,
    OpaqueAction,
    OutInterface,
    Ports,
    Property,
    Protocol,
    Reject,
    Return,
    ReversePath,
    SetConnMark,
    SetMark,
    SetMember,
    SetProperty,
    Silent,
    Snat,
    Source,
    SourcePort,
    Step,
    TcpFlags,
    UnknownMark,
)

__all__ = ["words"]

_HEAD = (Source, Destination, InInterface, OutInterface, Protocol)
_PROTOCOLS = {
    **{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 51: "ah"},
    **{58: "ipv6-icmp", 103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite"},
}
_MODULES = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
_STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")
_ALL = 0xFFFFFFFF
_MOST = 64  # members that are told


def words(steps: Sequence[Step], around: Iterable[Step] = ()) -> str:
    """The steps in one line; ``around``: others of their rule."""
    protocol = next((step.number for step in (*steps, *around) if isinstance(step, Protocol) and not step.negated), 0)
    ordered = sorted(steps, key=lambda step: _HEAD.index(type(step)) if type(step) in _HEAD else len(_HEAD))
    found: list[str] = []
    module = ""
    for step in ordered:
        needs, text = _step(step, protocol)
        if needs and needs != module:
            found.append(f"-m {needs}")
        module = needs
        if text:
            found.append(text)
    return " ".join(found)


def _not(negated: bool) -> str:
    return "! " if negated else ""


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}:{last}"


def _step(step: Step, protocol: int) -> tuple[str, str]:
    """The match module that a step needs (empty: none), and its words."""
    match step:
        case Source(network, negated):
            return "", f"{_not(negated)}-s {network}"
        case Destination(network, negated):
            return "", f"{_not(negated)}-d {network}"
        case InInterface(name, negated):
            return "", f"{_not(negated)}-i {name}"
        case OutInterface(name, negated):
            return "", f"{_not(negated)}-o {name}"
        case Protocol(number, negated):
            return "", f"{_not(negated)}-p {_PROTOCOLS.get(number, number)}"
        case Mark(value, mask, negated):
            return "mark", f"{_not(negated)}--mark {_masked(value, mask)}"
        case ConnMark(value, mask, negated):
            return "connmark", f"{_not(negated)}--mark {_masked(value, mask)}"
        case SourcePort(first, last, negated):
            return _MODULES.get(protocol, "tcp"), f"{_not(negated)}--sport {_range(first, last)}"
        case DestinationPort(first, last, negated):
            return _MODULES.get(protocol, "tcp"), f"{_not(negated)}--dport {_range(first, last)}"
        case Ports(direction, ranges, negated):
            option = {"src": "sports", "dst": "dports"}.get(direction, "ports")
            return "multiport", f"{_not(negated)}--{option} {','.join(_range(*pair) for pair in ranges)}"
        case TcpFlags(mask, value, negated):
            return "tcp", f"{_not(negated)}--tcp-flags {_flags(mask)} {_flags(value)}"
        case IcmpType(number, codes, negated):
            code = "" if codes == (0, 255) else f"/{codes[0]}" if codes[0] == codes[1] else f"/{codes[0]}:{codes[1]}"
            module, option = ("icmp6", "icmpv6-type") if protocol == 58 else ("icmp", "icmp-type")
            return module, f"{_not(negated)}--{option} {number}{code}"
        case CtState(states, negated):
            return "conntrack", f"{_not(negated)}--ctstate {','.join(state for state in _STATES if state in states)}"
        case AddrType(direction, types, negated):
            return "addrtype", f"{_not(negated)}--{direction}-type {','.join(sorted(types))}"
        case ReversePath(negated):
            return "rpfilter", "--invert" if negated else ""
        case SetMember(name, direction, _, negated) if name.startswith("range "):
            return "iprange", f"{_not(negated)}--{direction}-range {name.removeprefix('range ')}"
        case SetMember(name, direction, _, negated):
            shown = name or ",".join(sorted(map(str, step.networks(_MOST) or ())))
            return "set", f"{_not(negated)}--match-set {shown} {direction}"
        case Property("ip fragment", ((0, 0),), 0x1FFF, negated):
            return "", "-f" if negated else "! -f"
        case Opaque(text) if text.startswith("limit rate "):  # iptables-nft writes nft's own expression
            rate, _, burst = text.removeprefix("limit rate ").removesuffix(" packets").partition(" burst ")
            return "limit", f"--limit {rate}" + (f" --limit-burst {burst}" if burst else "")
        case Property() | AnyOf() | Element() | Opaque():
            return "", step.text
        case Comment(text):
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            return "comment", f'--comment "{escaped}"'
        case _:
            return "", _effect(step)


def _masked(value: int, mask: int) -> str:
    return f"{value:#x}" if mask == _ALL else f"{value:#x}/{mask:#x}"


def _flags(bits: int) -> str:
    names = [name for bit, name in enumerate(_FLAGS) if bits >> bit & 1]
    return ",".join(names) or "NONE"


def _effect(step: Step) -> str:
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
            return "-j MASQUERADE" + ("" if ports is None else f" --to-ports {_dashed(*ports)}") + _options(step)
        case Snat(first, last, ports=ports):
            address = f"{first}" if first == last else f"{first}-{last}"
            if ports is not None:
                address = f"{address}:{_dashed(*ports)}" if first.version == 4 else f"[{address}]:{_dashed(*ports)}"
            return f"-j SNAT --to-source {address}{_options(step)}"
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
        case OneOf(text=text) | Silent(text) | SetProperty(_, text) | OpaqueAction(text):
            return text
        case _:
            raise AssertionError(step)


def _answer(how: str) -> str:
    """iptables-nft may write a reject of nft's own."""
    return how.replace("icmpv6 ", "icmp6-").replace("icmp ", "icmp-").replace(" ", "-")


def _options(step: Masquerade | Snat) -> str:
    return (
        (" --random" if step.random else "")
        + (" --random-fully" if step.random_fully else "")
        + (" --persistent" if step.persistent and isinstance(step, Snat) else "")
    )


def _dashed(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _moved(step: MoveMark) -> str:
    how = "--restore-mark" if step.restore else "--save-mark"
    packet, connection = (step.cleared, step.taken) if step.restore else (step.taken, step.cleared)
    shift = "" if not step.shift else f" --{'left' if step.shift > 0 else 'right'}-shift-mark {abs(step.shift)}"
    return f"{how} --nfmask {packet:#x} --ctmask {connection:#x}{shift}"
