"""Targets: one decoder for each extension and revision, and the list of targets that decide nothing.

As in ``matches``, a decoder may raise ``struct.error`` or ``ValueError``; ``extensions.decode_target`` turns that into
``OpaqueAction``. A target belongs into ``SILENT`` only if, by its kernel source, it always continues with the next rule
and changes neither the packet's mark nor its translation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from hitless.model.families import Address, Family
from hitless.model.matches.base import span
from hitless.model.rules import (
    Accept,
    ConntrackTemplate,
    Dnat,
    Drop,
    Masquerade,
    MoveMark,
    NoTrack,
    OpaqueAction,
    Reject,
    Return,
    SetConnMark,
    SetMark,
    SetProperty,
    Snat,
    Step,
    UnknownMark,
)

__all__ = ["SILENT", "TARGETS", "Decoder", "silent"]

Decoder = Callable[[bytes, Family], tuple[Step, ...]]

SILENT = frozenset(
    {
        "AUDIT",
        "CHECKSUM",
        "CLASSIFY",
        "CONNSECMARK",
        "ECN",
        "IDLETIMER",
        "LED",
        "LOG",
        "NFLOG",
        "RATEEST",
        "SECMARK",
        "TCPMSS",
        "TCPOPTSTRIP",
        "TEE",
        "TRACE",
        "ULOG",
    }
)
"""Targets that always continue with the next rule and change nothing that rules compare."""


def silent(name: str, data: bytes) -> str:
    """The text of a silent target."""
    if name == "LOG":
        prefix = data[2:32].split(b"\0", 1)[0].decode("utf-8", "replace")
        options = [f'--log-prefix "{prefix}"'] if prefix else []
        options += [f"--log-level {data[0]}"] if data and data[0] != _WARNING else []
        return " ".join(["-j LOG", *options])
    if name == "NFLOG" and len(data) >= 80:
        group, prefix = struct.unpack_from("=H", data, 4)[0], data[16:80].split(b"\0", 1)[0].decode("utf-8", "replace")
        options = [f'--nflog-prefix "{prefix}"'] if prefix else []
        return " ".join(["-j NFLOG", *options, *([f"--nflog-group {group}"] if group else [])])
    if name == "TCPMSS" and len(data) >= 2:
        (size,) = struct.unpack_from("=H", data)
        return "-j TCPMSS --clamp-mss-to-pmtu" if size == 0xFFFF else f"-j TCPMSS --set-mss {size}"
    return f"-j {name}"


_WARNING = 4  # syslog's level, LOG's usual one

_VERDICTS: Mapping[int, Step] = MappingProxyType({-1: Drop(), -2: Accept(), -5: Return()})
"""The standard target's negative verdicts: ``-NF_DROP - 1``, ``-NF_ACCEPT - 1``, ``XT_RETURN``."""


def _standard(data: bytes, family: Family) -> tuple[Step, ...]:
    (verdict,) = struct.unpack_from("=i", data)
    if verdict >= 0:
        return (OpaqueAction(f"jump to offset {verdict}"),)
    return (_VERDICTS.get(verdict) or OpaqueAction(f"verdict {verdict}"),)


def _error(data: bytes, family: Family) -> tuple[Step, ...]:
    return (OpaqueAction(f"target ERROR {data.split(bytes(1), 1)[0].decode('ascii', 'replace')}"),)


_MAP_IPS, _PROTO, _RANDOM, _PERSISTENT, _RANDOM_FULLY, _OFFSET, _NETMAP = (1 << bit for bit in range(7))


def _range(data: bytes, family: Family) -> tuple[int, Address, Address, tuple[int, int]]:
    """flags, first and last address, first and last port of a ``nf_nat_range`` (or ``nf_nat_range2``: it begins so)."""
    (flags,) = struct.unpack_from("=I", data)
    ports = struct.unpack_from("!HH", data, 36)
    if family is Family.IPV4:
        return flags, IPv4Address(data[4:8]), IPv4Address(data[20:24]), ports
    return flags, IPv6Address(data[4:20]), IPv6Address(data[20:36]), ports


def _ipv4_range(data: bytes) -> tuple[int, Address, Address, tuple[int, int]]:
    """The same for a ``nf_nat_ipv4_multi_range_compat``, whose addresses and ports are in network order."""
    size, flags = struct.unpack_from("=II", data)
    if size != 1:
        raise ValueError("more than one range")
    return flags, IPv4Address(data[8:12]), IPv4Address(data[12:16]), struct.unpack_from("!HH", data, 16)


def _nat_range(data: bytes, family: Family) -> tuple[int, Address, Address, tuple[int, int]]:
    """The structure of the revision 0 NAT targets: the old one for IPv4, the common one for IPv6."""
    return _ipv4_range(data) if family is Family.IPV4 else _range(data, family)


def _masquerade(data: bytes, family: Family) -> tuple[Step, ...]:
    flags, _first, _last, ports = _nat_range(data, family)
    if flags & (_MAP_IPS | _OFFSET | _NETMAP | ~0x7F):
        return (OpaqueAction(f"-j MASQUERADE (flags {flags:#x})"),)
    return (
        Masquerade(
            random_fully=bool(flags & _RANDOM_FULLY),
            random=bool(flags & _RANDOM),
            persistent=bool(flags & _PERSISTENT),
            ports=ports if flags & _PROTO else None,
        ),
    )


def _snat_step(flags: int, first: Address, last: Address, ports: tuple[int, int]) -> tuple[Step, ...]:
    if not flags & _MAP_IPS or flags & (_OFFSET | _NETMAP | ~0x7F):
        return (OpaqueAction(f"-j SNAT (flags {flags:#x})"),)
    fully, random, persistent = (bool(flags & bit) for bit in (_RANDOM_FULLY, _RANDOM, _PERSISTENT))
    return (Snat(first, last, fully, random, persistent, ports if flags & _PROTO else None),)


def _dnat_step(flags: int, first: Address, last: Address, ports: tuple[int, int]) -> tuple[Step, ...]:
    options = []
    if flags & _MAP_IPS:
        options.append(span(first, last))
    if flags & _PROTO:
        options.append(f":{span(*ports)}")
    return (Dnat("".join(options)),)


def _snat_0(data: bytes, family: Family) -> tuple[Step, ...]:
    return _snat_step(*_ipv4_range(data))


def _snat(data: bytes, family: Family) -> tuple[Step, ...]:
    return _snat_step(*_range(data, family))


def _dnat_0(data: bytes, family: Family) -> tuple[Step, ...]:
    return _dnat_step(*_ipv4_range(data))


def _dnat(data: bytes, family: Family) -> tuple[Step, ...]:
    return _dnat_step(*_range(data, family))


def _redirect(data: bytes, family: Family) -> tuple[Step, ...]:
    flags, _first, _last, ports = _nat_range(data, family)
    shown = f"{ports[0]}" if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"
    return (Dnat(f"redirect:{shown}" if flags & _PROTO else "redirect"),)


def _mark(data: bytes, family: Family) -> tuple[Step, ...]:
    # xt_mark_tginfo2: mark, mask; new mark = (mark & ~mask) ^ value.
    mark, mask = struct.unpack_from("=II", data)
    return (SetMark(mark, mask),)


_CONNMARK_SET, _CONNMARK_SAVE, _CONNMARK_RESTORE = 0, 1, 2


def _connmark(data: bytes, mode: int, shift: int) -> tuple[Step, ...]:
    # xt_connmark_tginfo1, 2: ctmark, ctmask, nfmask, (shift,) mode.
    mark, mask, packet_mask = struct.unpack_from("=III", data)
    if mode == _CONNMARK_SET:
        if shift:
            return (UnknownMark(connection=True, text="-j CONNMARK --set-xmark (shifted)"),)
        return (SetConnMark(mark, mask),)
    if mode == _CONNMARK_SAVE:
        return (MoveMark(False, mask, packet_mask, shift),)
    if mode == _CONNMARK_RESTORE:
        return (MoveMark(True, packet_mask, mask, shift),)
    raise ValueError("connmark")


def _connmark_1(data: bytes, family: Family) -> tuple[Step, ...]:
    return _connmark(data, data[12], 0)


def _connmark_2(data: bytes, family: Family) -> tuple[Step, ...]:
    direction, bits = data[12], data[13]
    return _connmark(data, data[14], -bits if direction else bits)


_IPV4_REJECTS = (
    "icmp-net-unreachable",
    "icmp-host-unreachable",
    "icmp-proto-unreachable",
    "icmp-port-unreachable",
    "icmp-echo-reply",
    "icmp-net-prohibited",
    "icmp-host-prohibited",
    "tcp-reset",
    "icmp-admin-prohibited",
)
_IPV6_REJECTS = (
    "icmp6-no-route",
    "icmp6-adm-prohibited",
    "icmp6-not-neighbour",
    "icmp6-addr-unreachable",
    "icmp6-port-unreachable",
    "icmp6-echo-reply",
    "tcp-reset",
    "icmp6-policy-fail",
    "icmp6-reject-route",
)


def _reject(data: bytes, family: Family) -> tuple[Step, ...]:
    (how,) = struct.unpack_from("=I", data)
    names = _IPV4_REJECTS if family is Family.IPV4 else _IPV6_REJECTS
    return (Reject(names[how] if how < len(names) else f"answer {how}"),)


_CT_NOTRACK = 1
_CT_ZONE_FLAGS = 0x1C
"""XT_CT_ZONE_DIR_ORIG, XT_CT_ZONE_DIR_REPL and XT_CT_ZONE_MARK: the zone is not the same number for both directions."""


def _ct(data: bytes, family: Family) -> tuple[Step, ...]:
    # xt_ct_target_info: flags, zone, events of two kinds, helper; a timeout or events decide nothing.
    flags, zone = struct.unpack_from("=HH", data)
    helper = data[12:28].split(b"\0", 1)[0].decode("utf-8", "replace")
    if flags & _CT_NOTRACK:
        return (NoTrack(),)
    known = None if flags & _CT_ZONE_FLAGS else zone
    options = (f" --zone {zone}" if known != 0 else "") + (f" --helper {helper}" if helper else "")
    return (ConntrackTemplate(known, bool(helper), text=f"-j CT{options}"),)


def _ttl(data: bytes, family: Family) -> tuple[Step, ...]:
    name = "TTL" if family is Family.IPV4 else "HL"
    option = ("set", "inc", "dec")[data[0]]
    return (SetProperty("ttl", f"-j {name} --{name.lower()}-{option} {data[1]}"),)


def _dscp(data: bytes, family: Family) -> tuple[Step, ...]:
    return (SetProperty("tos", f"-j DSCP --set-dscp {data[0]:#04x}"),)


def _tos(data: bytes, family: Family) -> tuple[Step, ...]:
    return (SetProperty("tos", f"-j TOS --set-tos {data[0]:#04x}/{data[1]:#04x}"),)


_NO_SET = 65535


def _set_3(data: bytes, family: Family) -> tuple[Step, ...]:
    # xt_set_info_target_v3: sets to add to, to delete from, to map marks from (IPSET_INVALID_ID: none).
    (mapped,) = struct.unpack_from("=H", data, 8)
    changed = _set_1(data, family)
    return changed if mapped == _NO_SET else (*changed, UnknownMark(text=f"-j SET --map-set #{mapped}"))


def _set_1(data: bytes, family: Family) -> tuple[Step, ...]:
    # xt_set_info twice: index, number of dimensions, flags.
    steps: list[Step] = []
    for option, at in (("add-set", 0), ("del-set", 4)):
        index, dimensions, flags = struct.unpack_from("=HBB", data, at)
        if index != _NO_SET:
            directions = ",".join("src" if flags >> n & 1 else "dst" for n in range(1, dimensions + 1))
            steps.append(SetProperty(f"#{index}", f"-j SET --{option} #{index} {directions}"))
    return tuple(steps)


def _queue(data: bytes, family: Family) -> tuple[Step, ...]:
    return (OpaqueAction(f"-j NFQUEUE --queue-num {struct.unpack_from('=H', data)[0]}"),)


def _bare(name: str) -> Decoder:
    return lambda data, family: (OpaqueAction(f"-j {name}"),)


def _hmark(data: bytes, family: Family) -> tuple[Step, ...]:
    return (UnknownMark(text="-j HMARK"),)


def _notrack(data: bytes, family: Family) -> tuple[Step, ...]:
    return (NoTrack(),)


TARGETS: Mapping[tuple[str, int], Decoder] = MappingProxyType(
    {
        ("", 0): _standard,
        ("standard", 0): _standard,
        ("ERROR", 0): _error,
        ("MASQUERADE", 0): _masquerade,
        ("SNAT", 0): _snat_0,
        ("SNAT", 1): _snat,
        ("SNAT", 2): _snat,
        ("DNAT", 0): _dnat_0,
        ("DNAT", 1): _dnat,
        ("DNAT", 2): _dnat,
        ("REDIRECT", 0): _redirect,
        ("MARK", 2): _mark,
        ("CONNMARK", 1): _connmark_1,
        ("CONNMARK", 2): _connmark_2,
        ("HMARK", 0): _hmark,
        ("REJECT", 0): _reject,
        ("CT", 0): _ct,
        ("CT", 1): _ct,
        ("CT", 2): _ct,
        ("NOTRACK", 0): _notrack,
        ("TTL", 0): _ttl,
        ("HL", 0): _ttl,
        ("DSCP", 0): _dscp,
        ("TOS", 1): _tos,
        ("NFQUEUE", 0): _queue,
        ("NFQUEUE", 1): _queue,
        ("NFQUEUE", 2): _queue,
        ("NFQUEUE", 3): _queue,
        ("TPROXY", 0): _bare("TPROXY"),
        ("TPROXY", 1): _bare("TPROXY"),
        ("SYNPROXY", 0): _bare("SYNPROXY"),
        ("NETMAP", 0): _bare("NETMAP"),
        ("SET", 1): _set_1,
        ("SET", 2): _set_1,
        ("SET", 3): _set_3,
    }
)
"""Decoders by extension name and revision; what is neither here nor in ``SILENT`` is opaque."""
