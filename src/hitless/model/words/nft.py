"""A rule in the words of nft, as ``nft list ruleset`` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.model.families import Network
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

_PROTOCOLS = {
    **{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 51: "ah"},
    **{58: "ipv6-icmp", 132: "sctp", 136: "udplite"},
}
_WITH_PORTS = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
_OF_PROTOCOL = (SourcePort, DestinationPort, Ports, TcpFlags, IcmpType)
_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
_STATES = ("INVALID", "ESTABLISHED", "RELATED", "NEW", "UNTRACKED", "SNAT", "DNAT")
_ALL = 0xFFFFFFFF
_MOST = 12  # elements of a set that are told


def words(steps: Sequence[Step], around: Iterable[Step] = ()) -> str:
    """The steps in one line; ``around``: others of their rule."""
    numbers = [step.number for step in (*steps, *around) if isinstance(step, Protocol) and not step.negated]
    protocol = numbers[0] if numbers else 0
    name = _PROTOCOLS.get(protocol, "")
    said_with_port = any(isinstance(step, _OF_PROTOCOL) or _speaks_of(step, name) for step in steps)
    found = []
    for step in steps:
        if isinstance(step, Protocol) and not step.negated and said_with_port and protocol in (*_WITH_PORTS, 1, 58):
            continue  # "tcp dport 53" says the protocol
        found.append(_condition(step, protocol))
    # nft tells a rule's comment last
    found += [f'comment "{step.text}"' for step in steps if isinstance(step, Comment)]
    return " ".join(text for text in found if text)


def _speaks_of(step: Step, protocol: str) -> bool:
    """Whether a condition's own text names the protocol."""
    text = step.text if isinstance(step, Property | AnyOf | Element | Opaque) else ""
    return bool(protocol) and (text.startswith(f"{protocol} ") or f" . {protocol} " in text)


def _not(negated: bool) -> str:
    return "!= " if negated else ""


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _ip(network: Network) -> str:
    return "ip" if network.version == 4 else "ip6"


def _address(network: Network) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _condition(step: Step, protocol: int) -> str:
    ports = _WITH_PORTS.get(protocol, "th")
    match step:
        case Source(network, negated) if network.prefixlen == 0:
            return f"meta nfproto {_not(negated)}ipv{network.version}"
        case Source(network, negated):
            return f"{_ip(network)} saddr {_not(negated)}{_address(network)}"
        case Destination(network, negated):
            return f"{_ip(network)} daddr {_not(negated)}{_address(network)}"
        case InInterface(name, negated):
            return f'iifname {_not(negated)}"{_wild(name)}"'
        case OutInterface(name, negated):
            return f'oifname {_not(negated)}"{_wild(name)}"'
        case Protocol(number, negated):
            return f"meta l4proto {_not(negated)}{_PROTOCOLS.get(number, number)}"
        case Mark(value, mask, negated):
            return f"meta mark {_masked(value, mask, negated)}"
        case ConnMark(value, mask, negated):
            return f"ct mark {_masked(value, mask, negated)}"
        case SourcePort(first, last, negated):
            return f"{ports} sport {_not(negated)}{_range(first, last)}"
        case DestinationPort(first, last, negated):
            return f"{ports} dport {_not(negated)}{_range(first, last)}"
        case Ports(direction, ranges, negated):
            which = {"src": "sport", "dst": "dport"}.get(direction, "port")
            return f"{ports} {which} {_not(negated)}{_listed([_range(*pair) for pair in ranges])}"
        case TcpFlags(mask, value, negated):
            return f"tcp flags & ({_flags(mask)}) {'!=' if negated else '=='} {_flags(value)}"
        case IcmpType(number, codes, negated):
            family = "icmpv6" if protocol == 58 else "icmp"
            return f"{family} type {_not(negated)}{number}" + (
                "" if codes == (0, 255) else f" {family} code {_range(*codes)}"
            )
        case CtState(states, negated):
            names = ",".join(state.lower() for state in _STATES if state in states)
            kind = "status" if states & {"SNAT", "DNAT"} else "state"
            return f"ct {kind} {('!= ' if len(states) == 1 else '! ') if negated else ''}{names}"
        case AddrType(direction, types, negated):
            return f"fib {direction[0]}addr type {_not(negated)}{_listed(sorted(name.lower() for name in types))}"
        case ReversePath(negated):
            return f"fib saddr . iif oif {'missing' if negated else 'exists'}"
        case SetMember():
            return _member(step)
        case Property() | AnyOf() | Element() | Opaque():
            return step.text
        case Comment():
            return ""
        case _:
            return _effect(step)


def _wild(name: str) -> str:
    return f"{name[:-1]}*" if name.endswith("+") else name


def _masked(value: int, mask: int, negated: bool) -> str:
    if mask == _ALL:
        return f"{_not(negated)}{value:#010x}"
    return f"& {mask:#010x} {'!=' if negated else '=='} {value:#010x}"


def _flags(bits: int) -> str:
    names = [name for bit, name in enumerate(_FLAGS) if bits >> bit & 1]
    return " | ".join(names) or "0x0"


def _listed(texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    more = f", … {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return f"{{ {', '.join(texts[:_MOST])}{more} }}"


def _member(step: SetMember) -> str:
    networks = sorted(step.networks(_MOST) or (), key=lambda network: (network.version, network))
    family = _ip(networks[0]) if networks else "ip"
    where = "saddr" if step.direction == "src" else "daddr"
    if step.name:
        return f"{family} {where} {_not(step.negated)}@{step.name}"
    return f"{family} {where} {_not(step.negated)}{_listed([_address(network) for network in networks] or ['{ }'])}"


def _effect(step: Step) -> str:
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
            return "masquerade" + ("" if ports is None else f" to :{_range(*ports)}") + _options(step)
        case Snat(first, last, ports=ports):
            address = f"{first}" if first == last else f"{first}-{last}"
            if ports is not None:
                address = f"{address}:{_range(*ports)}" if first.version == 4 else f"[{address}]:{_range(*ports)}"
            return f"snat {'ip' if first.version == 4 else 'ip6'} to {address}{_options(step)}"
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
        case OneOf(text=text) | Silent(text) | SetProperty(_, text) | OpaqueAction(text):
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
