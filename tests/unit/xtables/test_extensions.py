"""Extension blobs: known ones exactly, unknown ones visibly, broken ones without harm."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hitless.kernel.xtables.extensions import decode_match, decode_target
from hitless.kernel.xtables.matches import MATCHES
from hitless.kernel.xtables.targets import SILENT, TARGETS
from hitless.model.families import Family
from hitless.model.rules import (
    Accept,
    AddrType,
    Comment,
    ConntrackTemplate,
    CtState,
    DestinationPort,
    Dnat,
    Drop,
    IcmpType,
    Mark,
    Masquerade,
    Match,
    MoveMark,
    NoTrack,
    Opaque,
    OpaqueAction,
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
    SourcePort,
    Step,
    TcpFlags,
    UnknownMark,
)

V4, V6 = Family.IPV4, Family.IPV6


def conntrack(flags: int, inverted: int = 0, states: int = 0, protocol: int = 0) -> bytes:
    """A struct xt_conntrack_mtinfo3."""
    head = struct.pack("=128xII", 0, 0)
    return head + struct.pack("=H4H2H2H4H", protocol, 0, 0, 0, 0, flags, inverted, states, 0, 0, 0, 0, 0) + b"\0\0"


def multiport(direction: int, ports: list[int], flags: list[int], inverted: int = 0) -> bytes:
    padded = ports + [0] * (15 - len(ports))
    return struct.pack("=BB15H15BB", direction, len(ports), *padded, *flags, *[0] * (15 - len(flags)), inverted)


@pytest.mark.parametrize(
    ("name", "revision", "family", "data", "steps"),
    [
        ("comment", 0, V4, b"flanneld masq".ljust(256, b"\0"), (Comment("flanneld masq"),)),
        ("comment", 0, V4, b"\xff".ljust(256, b"\0"), (Comment("\ufffd"),)),
        ("mark", 1, V4, struct.pack("=IIB3x", 0x4000, 0x4000, 0), (Mark(0x4000, 0x4000),)),
        ("mark", 1, V6, struct.pack("=IIB3x", 1, 3, 1), (Mark(1, 3, negated=True),)),
        ("tcp", 0, V4, struct.pack("=4H4B", 0, 65535, 80, 80, 0, 0, 0, 0), (Protocol(6), DestinationPort(80, 80))),
        ("tcp", 0, V4, struct.pack("=4H4B", 0, 65535, 0, 65535, 0, 0x17, 2, 0), (Protocol(6), TcpFlags(0x17, 2))),
        (
            "tcp",
            0,
            V4,
            struct.pack("=4H4B", 1, 9, 0, 65535, 0, 0x17, 2, 0x05),
            (Protocol(6), SourcePort(1, 9, negated=True), TcpFlags(0x17, 2, negated=True)),
        ),
        ("udp", 0, V4, struct.pack("=4HB", 0, 65535, 53, 53, 2), (Protocol(17), DestinationPort(53, 53, True))),
        ("icmp", 0, V4, bytes((8, 0, 255, 0)), (Protocol(1), IcmpType(8))),
        ("icmp", 0, V4, bytes((255, 0, 255, 0)), (Protocol(1),)),
        ("icmp6", 0, V6, bytes((128, 0, 0, 1)), (Protocol(58), IcmpType(128, (0, 0), negated=True))),
        ("multiport", 1, V4, multiport(1, [80, 443], []), (Ports("dst", ((80, 80), (443, 443))),)),
        (
            "multiport",
            1,
            V4,
            multiport(2, [1, 9, 20], [1], 1),
            (Ports("either", ((1, 9), (20, 20)), negated=True),),
        ),
        ("multiport", 1, V4, multiport(0, [53], []), (SourcePort(53, 53),)),
        ("state", 0, V4, struct.pack("=I", 8), (CtState(frozenset({"NEW"})),)),
        ("conntrack", 3, V4, conntrack(1, 0, 6), (CtState(frozenset({"ESTABLISHED", "RELATED"})),)),
        (
            "conntrack",
            2,
            V6,
            conntrack(0x2001, 1, 1 | 1 << 7),
            (CtState(frozenset({"INVALID", "DNAT"}), negated=True),),
        ),
        ("conntrack", 3, V4, conntrack(2, 2, 0, 6), (Property("ct protocol", ((6, 6),), None, True),)),
        ("addrtype", 1, V4, struct.pack("=HHI", 0, 4, 0), (AddrType("dst", frozenset({"LOCAL"})),)),
        (
            "addrtype",
            1,
            V4,
            struct.pack("=HHI", 2, 4, 9),
            (Opaque("-m addrtype --src-type 0x2 --limit-iface"), AddrType("dst", frozenset({"LOCAL"}))),
        ),
        ("addrtype", 0, V4, struct.pack("=HHII", 4, 0, 1, 0), (AddrType("src", frozenset({"LOCAL"}), negated=True),)),
        ("set", 4, V4, struct.pack("=HBB44x", 7, 1, 2), (SetMember("#7", "src"),)),
        ("set", 1, V4, struct.pack("=HBB", 7, 2, 0x03), (SetMember("#7", "src,dst", None, negated=True),)),
        (
            "iprange",
            1,
            V4,
            struct.pack("!I12xI12x32xB7x", 0x0A000000, 0x0A0000FF, 0x11),
            (SetMember("range 10.0.0.0-10.0.0.255", "src", frozenset({ip_network("10.0.0.0/24")}), negated=True),),
        ),
    ],
)
def test_a_known_match_becomes_exact_conditions(
    name: str, revision: int, family: Family, data: bytes, steps: tuple[Match, ...]
) -> None:
    assert decode_match(name, revision, data, family) == steps


def v4_range(flags: int, first: str = "0.0.0.0", last: str = "0.0.0.0", ports: tuple[int, int] = (0, 0)) -> bytes:
    head = struct.pack("=II", 1, flags)
    return head + ip_address(first).packed + ip_address(last).packed + struct.pack("!HH", *ports)


def v6_range(flags: int, first: str = "::", last: str = "::", ports: tuple[int, int] = (0, 0)) -> bytes:
    return struct.pack("=I", flags) + ip_address(first).packed + ip_address(last).packed + struct.pack("!HH", *ports)


@pytest.mark.parametrize(
    ("name", "revision", "family", "data", "steps"),
    [
        ("", 0, V4, struct.pack("=i", -1), (Drop(),)),
        ("standard", 0, V4, struct.pack("=i", -2), (Accept(),)),
        ("", 0, V6, struct.pack("=i", -5), (Return(),)),
        ("", 0, V4, struct.pack("=i", -4), (OpaqueAction("verdict -4"),)),
        ("", 0, V4, struct.pack("=i", 152), (OpaqueAction("jump to offset 152"),)),
        ("MASQUERADE", 0, V4, v4_range(0), (Masquerade(),)),
        ("MASQUERADE", 0, V4, v4_range(0x10), (Masquerade(random_fully=True),)),
        ("MASQUERADE", 0, V6, v6_range(0x10), (Masquerade(random_fully=True),)),
        ("MASQUERADE", 0, V4, v4_range(0x06, ports=(1024, 2047)), (Masquerade(random=True, ports=(1024, 2047)),)),
        ("MASQUERADE", 0, V4, v4_range(0x40), (OpaqueAction("-j MASQUERADE (flags 0x40)"),)),
        (
            "SNAT",
            0,
            V4,
            v4_range(1, "192.0.2.1", "192.0.2.9"),
            (Snat(ip_address("192.0.2.1"), ip_address("192.0.2.9")),),
        ),
        (
            "SNAT",
            1,
            V6,
            v6_range(0x11, "fd00::1", "fd00::1"),
            (Snat(ip_address("fd00::1"), ip_address("fd00::1"), True),),
        ),
        ("DNAT", 0, V4, v4_range(3, "10.0.0.1", "10.0.0.1", (80, 80)), (Dnat("10.0.0.1:80"),)),
        ("REDIRECT", 0, V4, v4_range(2, ports=(8080, 8080)), (Dnat("redirect:8080"),)),
        ("MARK", 2, V4, struct.pack("=II", 0x4000, 0), (SetMark(0x4000, 0),)),
        ("CONNMARK", 1, V4, struct.pack("=IIIB3x", 0, 0xFF, 0xF0, 2), (MoveMark(True, 0xF0, 0xFF),)),
        ("CONNMARK", 1, V4, struct.pack("=IIIB3x", 0, 0xFF, 0xF0, 1), (MoveMark(False, 0xFF, 0xF0),)),
        ("CONNMARK", 1, V4, struct.pack("=IIIB3x", 0x80, 0x80, 0, 0), (SetConnMark(0x80, 0x80),)),
        ("CONNMARK", 2, V4, struct.pack("=IIIBBBx", 0, 0xFF, 0xF0, 0, 4, 2), (MoveMark(True, 0xF0, 0xFF, 4),)),
        ("REJECT", 0, V4, struct.pack("=I", 7), (Reject("tcp-reset"),)),
        ("REJECT", 0, V6, struct.pack("=I", 4), (Reject("icmp6-port-unreachable"),)),
        ("CT", 2, V4, struct.pack("=H64x", 1), (NoTrack(),)),
        ("CT", 2, V4, struct.pack("=H64x", 0), (ConntrackTemplate(),)),
        ("CT", 2, V4, struct.pack("=HH62x", 0, 7), (ConntrackTemplate(7),)),
        ("CT", 2, V4, struct.pack("=HH62x", 4, 7), (ConntrackTemplate(None),)),
        ("SET", 3, V4, struct.pack("=HBBHBBHBBII", 1, 1, 1, 65535, 0, 0, 65535, 0, 0, 0, 0), (SetProperty("#1"),)),
        ("SET", 3, V4, struct.pack("=HBBHBBHBBII", 65535, 0, 0, 65535, 0, 0, 2, 1, 1, 0, 0), (UnknownMark(),)),
        ("LOG", 0, V4, b"", (Silent("-j LOG"),)),
        ("NFQUEUE", 3, V4, bytes(8), (OpaqueAction("-j NFQUEUE --queue-num 0"),)),
    ],
)
def test_a_known_target_becomes_exact_effects(
    name: str, revision: int, family: Family, data: bytes, steps: tuple[Step, ...]
) -> None:
    assert decode_target(name, revision, data, family) == steps


def test_the_reverse_path_filter_is_understood_as_far_as_its_flags_are_known() -> None:
    assert decode_match("rpfilter", 0, b"\x02", V4) == (ReversePath(),)
    assert decode_match("rpfilter", 0, b"\x0a", V4) == (ReversePath(True),)
    assert decode_match("rpfilter", 0, b"\x10", V4) == (Opaque("-m rpfilter (flags 0x10)"),)


def test_an_unknown_extension_stays_visible_with_its_name_and_revision() -> None:
    assert decode_match("teleport", 1, bytes(20), V4) == (Opaque("-m teleport (revision 1, not known here)"),)
    assert decode_match("mark", 9, bytes(20), V4) == (Opaque("-m mark (revision 9, not known here)"),)
    assert decode_target("NOWHERE", 1, bytes(20), V4) == (OpaqueAction("-j NOWHERE (revision 1, not known here)"),)


@pytest.mark.parametrize("flag", range(1, 16))
def test_a_conntrack_condition_beside_the_state_is_never_left_out(flag: int) -> None:
    steps = decode_match("conntrack", 3, conntrack(1 << flag), V4)
    alias = 13  # XT_CONNTRACK_STATE_ALIAS says how to print, and asks for nothing
    assert all(isinstance(step, Property | Opaque) and step.text.startswith("-m conntrack ") for step in steps)
    assert bool(steps) == (flag != alias)


names = st.sampled_from([*MATCHES, *TARGETS, *((name, 0) for name in sorted(SILENT))])
names_or_noise = names | st.tuples(st.text(max_size=8), st.integers(0, 255))


@given(names_or_noise, st.binary(max_size=300), st.sampled_from(list(Family)))
@example(("TCPMSS", 0), b"", V4)
def test_no_bytes_make_the_decoders_fail_or_say_nothing(key: tuple[str, int], data: bytes, family: Family) -> None:
    name, revision = key
    matches = decode_match(name, revision, data, family)
    assert all(isinstance(step, Match | SetProperty) for step in matches)
    if key not in MATCHES:
        assert matches == (Opaque(f"-m {name} (revision {revision}, not known here)"),)
    target = decode_target(name, revision, data, family)
    if key not in TARGETS and name not in SILENT:
        assert target == (OpaqueAction(f"-j {name} (revision {revision}, not known here)"),)


@given(names, st.integers(0, 7), st.sampled_from(list(Family)))
def test_a_blob_that_is_too_short_is_opaque(key: tuple[str, int], length: int, family: Family) -> None:
    name, revision = key
    always_short = {"conntrack", "addrtype", "mark", "tcp", "udp", "multiport", "iprange"}
    if name in always_short and key in MATCHES and length < 8:
        assert any(isinstance(step, Opaque) for step in decode_match(name, revision, bytes(length), family))
    if name in {"MASQUERADE", "SNAT", "DNAT", "MARK", "REDIRECT"} and key in TARGETS:
        assert decode_target(name, revision, bytes(length), family)[0].__class__ is OpaqueAction
