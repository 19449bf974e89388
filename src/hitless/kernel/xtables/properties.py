"""Matches on a property that a first packet certainly has or does not have.

Each decoder is as in ``matches``. It follows what the kernel's xt_*.c compares, also where there is no socket, no
connection or no header to compare: some matches then hold when they are inverted, some never. The properties' names are
those of ``semantics.properties``, the texts those of iptables-save.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from hitless.model import reading
from hitless.model.families import Family
from hitless.model.matches.base import span
from hitless.model.rules import AnyOf, ConnMark, CtState, Match, Opaque, Property, SetProperty, Step

__all__ = ["PROPERTIES", "Decoder", "conntrack_properties", "negation"]

Decoder = Callable[[bytes, Family], tuple[Step, ...]]

_MOST_32, _MOST_64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def negation(inverted: object) -> str:
    """``! `` before an option that is inverted."""
    return "! " if inverted else ""


def _range(low: int, high: int, most: int = -1) -> str:
    return str(low) if low == high else f"{low}:{'' if high == most else high}"


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


_PACKET_TYPES = {0: "unicast", 1: "broadcast", 2: "multicast"}


def _pkttype(data: bytes, family: Family) -> tuple[Match, ...]:
    kind, invert = struct.unpack_from("=ii", data)
    text = f"-m pkttype {negation(invert)}--pkt-type {_PACKET_TYPES.get(kind, kind)}"
    return (Property("packet type", ((kind, kind),), None, bool(invert), text),)


def _connmark(data: bytes, family: Family) -> tuple[Match, ...]:
    mark, mask, invert = struct.unpack_from("=IIB", data)
    return (ConnMark(mark, mask, bool(invert)),)


def _owner(data: bytes, family: Family) -> tuple[Match, ...]:
    uid, uid_last, gid, gid_last, match, invert = struct.unpack_from("=IIIIBB", data)
    options = ["-m owner"]
    for bit, option, value in (
        (1, "uid-owner", f" {span(uid, uid_last)}"),
        (2, "gid-owner", f" {span(gid, gid_last)}"),
        (4, "socket-exists", ""),
        (8, "suppl-groups", ""),
    ):
        if match & bit:
            options.append(f"{negation(invert & bit)}--{option}{value}")
    # without a socket it holds if every option is inverted (owner_mt)
    return (Property("socket", ((0, 0),) if match == invert else ((1, 1),), None, False, " ".join(options)),)


def _cgroup_0(data: bytes, family: Family) -> tuple[Match, ...]:
    number, invert = struct.unpack_from("=II", data)
    return (Property("socket", ((1, 1),), None, False, f"-m cgroup {negation(invert)}--cgroup {number}"),)


def _cgroup(data: bytes, family: Family) -> tuple[Match, ...]:
    has_path, _, invert_path, invert_class = struct.unpack_from("=BBBB", data)
    if has_path:
        text = f"-m cgroup {negation(invert_path)}--path {_text(data[4:])}"
    else:
        text = f"-m cgroup {negation(invert_class)}--cgroup {struct.unpack_from('=I', data, 4)[0]}"
    return (Property("socket", ((1, 1),), None, False, text),)


def _helper(data: bytes, family: Family) -> tuple[Match, ...]:
    (invert,) = struct.unpack_from("=i", data)
    text = f'-m helper {negation(invert)}--helper "{_text(data[4:34])}"'
    return (Property("master", ((1, 1),), None, bool(invert), text),)


def _length(data: bytes, family: Family) -> tuple[Match, ...]:
    low, high, invert = struct.unpack_from("=HHB", data)
    text = f"-m length {negation(invert)}--length {_range(low, high)}"
    return (Property("ip length", ((low, high),), None, bool(invert), text),)


_TTL = {0: "eq", 1: "eq", 2: "lt", 3: "gt"}


def _ttl(data: bytes, family: Family) -> tuple[Match, ...]:
    mode, value = data[0], data[1]
    if mode not in _TTL:
        raise ValueError("ttl")
    name = "ttl" if family is Family.IPV4 else "hl"
    text = f"-m {name} {negation(mode == 1)}--{name}-{_TTL[mode]} {value}"
    ranges = {2: (0, value - 1), 3: (value + 1, 255)}.get(mode, (value, value))
    return (Property("ttl", (ranges,), None, mode == 1, text),)


_POLICY_IN, _POLICY_NONE, _POLICY_STRICT = 1, 4, 8
_POLICY_ELEMENT = 4 * 16 + 4 + 4 + 2 + 2  # addresses and masks, spi, reqid, proto, mode, what is tested


def _policy(data: bytes, family: Family) -> tuple[Match, ...]:
    flags, length = struct.unpack_from("=HH", data, 4 * _POLICY_ELEMENT)
    options = [f"-m policy --dir {'in' if flags & _POLICY_IN else 'out'}"]
    options.append(f"--pol {'none' if flags & _POLICY_NONE else 'ipsec'}")
    options += ["--strict"] if flags & _POLICY_STRICT else []
    for number in range(min(length, 4)):
        spi, reqid, proto, mode, match, invert = struct.unpack_from("=IIBBBB", data, number * _POLICY_ELEMENT + 64)
        options += ["--next"] if number else []
        number_of_spi = int.from_bytes(struct.pack("=I", spi), "big")
        protocol = {50: "esp", 51: "ah", 108: "ipcomp"}.get(proto, proto)
        for bit, option in (
            (32, f"reqid {reqid}"),
            (16, f"spi {number_of_spi:#x}"),
            (4, f"proto {protocol}"),
            (8, f"mode {'tunnel' if mode else 'transport'}"),
        ):
            options += [f"{negation(invert & bit)}--{option}"] if match & bit else []
    name = "decrypted" if flags & _POLICY_IN else "ipsec out"
    wanted = ((0, 0),) if flags & _POLICY_NONE else ((1, 1),)
    return (Property(name, wanted, None, False, " ".join(options)),)


def _physdev(data: bytes, family: Family) -> tuple[Match, ...]:
    came, leaves = _interface(data, 0), _interface(data, 32)
    invert, tested = data[64], data[65]
    found: list[Match] = []
    for bit, options in ((1, f"physdev-in {came}"), (8, "physdev-is-in")):
        if tested & bit:  # with br_netfilter a packet from a bridge carries its port even when it is routed
            found.append(Opaque(f"-m physdev {negation(invert & bit)}--{options}"))
    for bit, options in ((2, f"physdev-out {leaves}"), (16, "physdev-is-out"), (4, "physdev-is-bridged")):
        if tested & bit:
            text = f"-m physdev {negation(invert & bit)}--{options}"
            found.append(Property("bridged", ((1, 1),), None, bool(invert & bit), text))
    return tuple(found)


def _interface(data: bytes, at: int) -> str:
    name, mask = data[at : at + 16], data[at + 16 : at + 32]
    whole = mask.rstrip(b"\0")
    return _text(name) if len(whole) > len(_text(name)) else f"{name[: len(whole)].decode('utf-8', 'replace')}+"


def _devgroup(data: bytes, family: Family) -> tuple[Match, ...]:
    flags, source, source_mask, destination, destination_mask = struct.unpack_from("=IIIII", data)
    found: list[Match] = []
    for bit, name, option, value, mask in (
        (1, "in group", "src-group", source, source_mask),
        (4, "out group", "dst-group", destination, destination_mask),
    ):
        if flags & bit:
            shown = f"{value:#x}" if mask == _MOST_32 else f"{value:#x}/{mask:#x}"
            text = f"-m devgroup {negation(flags & bit << 1)}--{option} {shown}"
            wanted = value & mask
            found.append(Property(name, ((wanted, wanted),), mask, bool(flags & bit << 1), text))
    return tuple(found)


_COUNTED = ("packets", "bytes", "average")
_DIRECTIONS = ("original", "reply", "both")


def _connbytes(data: bytes, family: Family) -> tuple[Match, ...]:
    low, high, what, direction = struct.unpack_from("=QQBB", data)
    inverted = high < low  # that is how iptables writes it
    shown = f"{high + 1}:{low - 1}" if inverted else f"{low}:{'' if high == _MOST_64 else high}"
    mode = ("packets", "bytes", "avgpkt")[what]
    text = f"-m connbytes {negation(inverted)}--connbytes {shown} --connbytes-mode {mode}"
    text += f" --connbytes-dir {_DIRECTIONS[direction]}"
    ranges = ((0, high - 1), (low + 1, _MOST_64)) if inverted else ((low, high),)
    return (Property(f"counted {_COUNTED[what]} {_DIRECTIONS[direction]}", ranges, None, False, text),)


def _connlabel(data: bytes, family: Family) -> tuple[Step, ...]:
    bit, options = struct.unpack_from("=HH", data)
    text = f"-m connlabel {negation(options & 1)}--label {bit}"
    if options & 2:
        return SetProperty("ct label"), Opaque(f"{text} --set")
    return (Property("labelled", ((1, 1),), None, bool(options & 1), text),)


def _dscp(data: bytes, family: Family) -> tuple[Match, ...]:
    value, invert = data[0], data[1]
    text = f"-m dscp {negation(invert)}--dscp {value:#04x}"
    return (Property("tos", ((value << 2, value << 2),), 0xFC, bool(invert), text),)


def _tos(data: bytes, family: Family) -> tuple[Match, ...]:
    mask, value, invert = data[0], data[1], data[2]
    text = f"-m tos {negation(invert)}--tos {value:#04x}/{mask:#04x}"
    return (Property("tos", ((value, value),), mask, bool(invert), text),)


def _socket(data: bytes, family: Family) -> tuple[Match, ...]:
    flags = data[0] if data else 0
    names = ((1, "--transparent"), (2, "--nowildcard"), (4, "--restore-skmark"))
    text = " ".join(["-m socket", *(name for bit, name in names if flags & bit)])
    # a socket for any address counts with --nowildcard only (xt_socket.c)
    return (Opaque(text),) if flags & 2 else (Property("bound socket", ((1, 1),), None, False, text),)


def _realm(data: bytes, family: Family) -> tuple[Match, ...]:
    number, mask, invert = struct.unpack_from("=IIB", data)
    shown = f"{number:#x}" if mask == _MOST_32 else f"{number:#x}/{mask:#x}"
    return (
        Property("route class", ((number, number),), mask, bool(invert), f"-m realm {negation(invert)}--realm {shown}"),
    )


def _ipvs(data: bytes, family: Family) -> tuple[Match, ...]:
    invert, tested = data[38], data[39]
    if tested == 1:
        return (Property("ipvs", ((1, 1),), None, bool(invert & 1), f"-m ipvs {negation(invert & 1)}--ipvs"),)
    return (Property("ipvs", ((1, 1),), None, False, "-m ipvs (of a virtual service)"),)


def _nfacct(data: bytes, family: Family) -> tuple[Match, ...]:
    name = _text(data[:32])
    return (Property(f"account {name}", ((0, 0),), None, False, f"-m nfacct --nfacct-name {name}"),)


_RECENT_CHECK, _RECENT_SET, _RECENT_UPDATE, _RECENT_REMOVE, _RECENT_TTL, _RECENT_REAP = (1 << bit for bit in range(6))
_RECENT = {_RECENT_CHECK: "--rcheck", _RECENT_SET: "--set", _RECENT_UPDATE: "--update", _RECENT_REMOVE: "--remove"}


def _recent(data: bytes, family: Family) -> tuple[Step, ...]:
    seconds, hits, tested, invert = struct.unpack_from("=IIBB", data)
    name, side = _text(data[10:210]), "--rdest" if data[210] else "--rsource"
    options = [f"-m recent {negation(invert)}{' '.join(option for bit, option in _RECENT.items() if tested & bit)}"]
    options += [f"--seconds {seconds}"] if seconds else []
    options += ["--reap"] if tested & _RECENT_REAP else []
    options += [f"--hitcount {hits}"] if hits else []
    options += ["--rttl"] if tested & _RECENT_TTL else []
    text = " ".join([*options, f"--name {name}", side])
    if tested & _RECENT_SET:  # it adds the packet's address, and holds (recent_mt)
        return SetProperty(f"recent {name}"), Property("anything", ((0, 0),), None, bool(invert), text)
    plain = not (seconds or hits or tested & (_RECENT_TTL | _RECENT_REAP))
    kind = f"recent {name} {side.removeprefix('--r')} {'listed' if plain else 'tested'}"
    found: tuple[Step, ...] = (Property(kind, ((1, 1),), None, bool(invert), text),)
    return found if tested & _RECENT_CHECK else (*found, SetProperty(f"recent {name}"))


def _string(data: bytes, family: Family) -> tuple[Match, ...]:
    first, last = struct.unpack_from("=HH", data)
    algorithm, length, flags = _text(data[4:20]), data[148], data[149]
    pattern = data[20 : 20 + min(length, 128)]
    plain = all(32 <= byte < 127 for byte in pattern)
    option = f'--string "{pattern.decode("ascii")}"' if plain else f'--hex-string "|{pattern.hex()}|"'
    options = [f"-m string {negation(flags & 1)}{option} --algo {algorithm}"]
    options += [f"--from {first}"] if first else []
    options += [f"--to {last}"] if last != 0xFFFF else []
    options += ["--icase"] if flags & 2 else []
    # a SYN carries no text; a few bytes could be its header's
    if len(pattern) < 4:
        return (Opaque(" ".join(options)),)
    return (Property("text", ((1, 1),), None, bool(flags & 1), " ".join(options)),)


def _header_6(name: str) -> Decoder:
    """An IPv6 extension header: without one the match does not hold, whatever it asks and inverts."""
    return lambda data, family: (Property("ip6 extensions", ((1, 255),), None, False, f"-m {name}"),)


_PROTOCOL_ONLY = 1  # MASK_PROTO: what ipv6header sees in a packet without extension headers


def _ipv6header(data: bytes, family: Family) -> tuple[Match, ...]:
    tested, invert, soft = data[0], data[1], data[2]
    strict = (tested == _PROTOCOL_ONLY) is not bool(invert)
    holds = not (_PROTOCOL_ONLY ^ tested ^ invert) & tested if soft else strict
    names = {128: "hop", 64: "dst", 32: "route", 16: "frag", 8: "auth", 4: "esp", 2: "none", 1: "prot"}
    listed = ",".join(name for bit, name in names.items() if tested & bit)
    text = f"-m ipv6header {negation(invert)}--header {listed}{' --soft' if soft else ''}"
    return (Property("ip6 extensions", ((0, 0),) if holds else ((1, 255),), None, False, text),)


# --- conntrack: what it asks beside the state

_ADDRESSES = {1 << 2: ("origsrc", 0), 1 << 3: ("origdst", 32), 1 << 4: ("replsrc", 64), 1 << 5: ("repldst", 96)}
_ADDRESS_NAMES = {
    **{"origsrc": "ct source original", "origdst": "ct destination original"},
    **{"replsrc": "ct source reply", "repldst": "ct destination reply"},
}
_PORTS = {
    1 << 8: ("origsrcport", 0),
    1 << 9: ("origdstport", 1),
    1 << 10: ("replsrcport", 2),
    1 << 11: ("repldstport", 3),
}
_PORT_NAMES = ("ct sport original", "ct dport original", "ct sport reply", "ct dport reply")
_PROTOCOL, _STATUS, _EXPIRES, _DIRECTION = 1 << 1, 1 << 6, 1 << 7, 1 << 12
_STATUS_NAMES = ((1, "EXPECTED"), (2, "SEEN_REPLY"), (4, "ASSURED"), (8, "CONFIRMED"))


def conntrack_properties(data: bytes, family: Family, flags: int, inverted: int, revision: int) -> list[Match]:
    """The conditions of a conntrack match besides the state (xt_conntrack_mtinfo1..3). Without a connection none of
    them holds, inverted or not."""
    found: list[Match] = []

    def add(bit: int, name: str, ranges: tuple[tuple[int, int], ...], mask: int | None, option: str) -> None:
        negated = bool(inverted & bit)
        if bit == _STATUS:
            negated = not negated  # any of the bits: not none of them
        text = f"-m conntrack {negation(inverted & bit and bit != _DIRECTION)}--{option}"
        found.append(Property(name, ranges, mask, negated, text))

    if flags & _PROTOCOL:
        (protocol,) = struct.unpack_from("=H", data, 136)
        add(_PROTOCOL, "ct protocol", ((protocol, protocol),), None, f"ctproto {protocol}")
    size = 4 if family is Family.IPV4 else 16
    for bit, (option, at) in _ADDRESSES.items():
        if flags & bit:
            address, mask = data[at : at + size], data[at + 16 : at + 16 + size]
            value, bits = int.from_bytes(address, "big"), int.from_bytes(mask, "big")
            shown = f"{reading.packed(address)}"
            if bits.bit_count() < 8 * size:
                shown += f"/{reading.packed(mask)}"
            add(bit, _ADDRESS_NAMES[option], ((value & bits, value & bits),), bits, f"ct{option} {shown}")
    for bit, (option, number) in _PORTS.items():
        if flags & bit:
            if revision >= 3:
                low = struct.unpack_from("=H", data, 138 + 2 * number)[0]
                high = struct.unpack_from("=H", data, 154 + 2 * number)[0]
            else:
                low = high = struct.unpack_from(">H", data, 138 + 2 * number)[0]
            add(bit, _PORT_NAMES[number], ((low, high),), None, f"ct{option} {_range(low, high)}")
    if flags & _STATUS:
        bits = data[151] if revision == 1 else struct.unpack_from("=H", data, 152)[0]
        listed = ",".join(name for value, name in _STATUS_NAMES if bits & value) or "NONE"
        add(_STATUS, "ct status", ((0, 0),), bits, f"ctstatus {listed}")
    if flags & _EXPIRES:
        low, high = struct.unpack_from("=II", data, 128)
        add(_EXPIRES, "ct expiration", ((low, high),), None, f"ctexpire {_range(low, high)}")
    if flags & _DIRECTION:
        direction = "REPLY" if inverted & _DIRECTION else "ORIGINAL"
        add(_DIRECTION, "ct direction", ((0, 0),), None, f"ctdir {direction}")
    if flags & 1:  # together with a state, the rest is not compared for a packet without a connection
        alone = CtState(frozenset({"INVALID", "UNTRACKED"}))
        return [AnyOf(((alone,), (each,)), text=each.text) for each in found if isinstance(each, Property)]
    return found


PROPERTIES: Mapping[tuple[str, int], Decoder] = MappingProxyType(
    {
        ("pkttype", 0): _pkttype,
        ("connmark", 1): _connmark,
        ("owner", 1): _owner,
        ("cgroup", 0): _cgroup_0,
        ("cgroup", 2): _cgroup,
        ("helper", 0): _helper,
        ("length", 0): _length,
        ("ttl", 0): _ttl,
        ("hl", 0): _ttl,
        ("policy", 0): _policy,
        ("physdev", 0): _physdev,
        ("devgroup", 0): _devgroup,
        ("connbytes", 0): _connbytes,
        ("connlabel", 0): _connlabel,
        ("connlabel", 1): _connlabel,
        ("dscp", 0): _dscp,
        ("tos", 1): _tos,
        ("socket", 0): _socket,
        ("socket", 1): _socket,
        ("socket", 2): _socket,
        ("socket", 3): _socket,
        ("realm", 0): _realm,
        ("ipvs", 0): _ipvs,
        ("nfacct", 0): _nfacct,
        ("nfacct", 1): _nfacct,
        ("recent", 0): _recent,
        ("recent", 1): _recent,
        ("string", 1): _string,
        ("frag", 0): _header_6("frag"),
        ("hbh", 0): _header_6("hbh"),
        ("dst", 0): _header_6("dst"),
        ("rt", 0): _header_6("rt"),
        ("mh", 0): _header_6("mh"),
        ("srh", 0): _header_6("srh"),
        ("srh", 1): _header_6("srh"),
        ("ipv6header", 0): _ipv6header,
    }
)
"""Decoders by extension name and revision."""
