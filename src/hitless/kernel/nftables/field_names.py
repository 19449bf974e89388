"""nft's names for the fields that rules load, and the evaluator's names for them.

Problem: the kernel identifies fields by numbers and offsets; operators know them as ``ct direction reply``. Promise:
``parts`` names the pieces of a header that a payload load covers, ``of_key`` a meta, ct, rt or socket key; ``value``
writes a value as nft does. The evaluator's names are those of ``semantics.properties``. Layouts: RFC 791, 8200, 9293,
768, 792; keys: the kernel's nf_tables.h. Next stage: ``fields`` makes conditions.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple

from hitless.model import reading

__all__ = ["NETWORK_HEADER", "PROTOCOLS", "TRANSPORT_HEADER", "FieldNames", "Part", "of_key", "parts", "value"]

NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
PROTOCOLS = {
    **{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp"},
    **{132: "sctp", 136: "udplite"},
}
_WITH_PORTS = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}


class FieldNames(NamedTuple):
    """``name`` for the evaluator, ``nft`` as nft writes it; ``values`` that have names; ``text``: the value is a
    string."""

    name: str
    nft: str
    values: Mapping[int, str] = {}
    text: bool = False


class Part(NamedTuple):
    """A part of a header: where it begins and how long it is, in bytes."""

    kind: str
    start: int
    size: int
    nft: str


_IP = (
    Part("ip head", 0, 1, "ip version"),
    Part("ip tos", 1, 1, "ip dscp"),
    Part("ip length", 2, 2, "ip length"),
    Part("ip id", 4, 2, "ip id"),
    Part("ip fragment", 6, 2, "ip frag-off"),
    Part("ttl", 8, 1, "ip ttl"),
    Part("protocol", 9, 1, "ip protocol"),
    Part("ip checksum", 10, 2, "ip checksum"),
    Part("source", 12, 4, "ip saddr"),
    Part("destination", 16, 4, "ip daddr"),
)
_IP6 = (
    Part("ip6 class", 0, 4, "ip6 flowlabel"),
    Part("ip6 length", 4, 2, "ip6 length"),
    Part("protocol", 6, 1, "ip6 nexthdr"),
    Part("ttl", 7, 1, "ip6 hoplimit"),
    Part("source", 8, 16, "ip6 saddr"),
    Part("destination", 24, 16, "ip6 daddr"),
)
_TCP = (
    Part("tcp sequence", 4, 4, "tcp sequence"),
    Part("tcp acknowledgement", 8, 4, "tcp ackseq"),
    Part("tcp offset", 12, 1, "tcp doff"),
    Part("flags", 13, 1, "tcp flags"),
    Part("tcp window", 14, 2, "tcp window"),
    Part("tcp checksum", 16, 2, "tcp checksum"),
    Part("tcp urgent", 18, 2, "tcp urgptr"),
)
_UDP = (Part("udp length", 4, 2, "udp length"), Part("udp checksum", 6, 2, "udp checksum"))
_ANY = (Part("transport sport", 0, 2, "th sport"), Part("transport dport", 2, 2, "th dport"))
_LINK = (Part("ether to", 0, 6, "ether daddr"), Part("ether from", 6, 6, "ether saddr"))


def _icmp(name: str) -> tuple[Part, ...]:
    return (
        Part("icmp", 0, 1, f"{name} type"),
        Part("icmp code", 1, 1, f"{name} code"),
        Part("icmp checksum", 2, 2, f"{name} checksum"),
        Part("icmp id", 4, 2, f"{name} id"),
        Part("icmp sequence", 6, 2, f"{name} sequence"),
    )


def parts(header: int, version: int, protocol: int | None) -> tuple[Part, ...]:
    """The parts of a header, for an IP version (0: unknown) and a transport protocol (``None``: unknown)."""
    if header == NETWORK_HEADER:
        return {4: _IP, 6: _IP6}.get(version, ())
    if header == TRANSPORT_HEADER:
        if protocol in _WITH_PORTS:
            name = _WITH_PORTS[protocol]
            ports = (Part("sport", 0, 2, f"{name} sport"), Part("dport", 2, 2, f"{name} dport"))
            return ports + {6: _TCP, 17: _UDP}.get(protocol, ())
        if protocol is None:  # "th": for any protocol
            return _ANY
        if protocol in (1, 58):
            return _icmp("icmp" if protocol == 1 else "icmpv6")
    return _LINK if header == 0 else ()


_DIRECTIONS = {0: "original", 1: "reply"}
_PACKET_TYPES = {0: "host", 1: "broadcast", 2: "multicast", 3: "other"}
_PRESENCE = {0: "missing", 1: "exists"}
_KEYS: Mapping[str, Mapping[int, FieldNames]] = {
    "meta": {
        0: FieldNames("ip length", "meta length"),
        1: FieldNames("protocol family", "meta protocol"),
        2: FieldNames("priority", "meta priority"),
        3: FieldNames("mark", "meta mark"),
        4: FieldNames("in index", "iif"),
        5: FieldNames("out index", "oif"),
        6: FieldNames("in name", "iifname", text=True),
        7: FieldNames("out name", "oifname", text=True),
        8: FieldNames("in type", "meta iiftype"),
        9: FieldNames("out type", "meta oiftype"),
        10: FieldNames("socket user", "meta skuid"),
        11: FieldNames("socket user", "meta skgid"),
        12: FieldNames("traced", "meta nftrace"),
        13: FieldNames("route class", "meta rtclassid"),
        14: FieldNames("security mark", "meta secmark"),
        15: FieldNames("family", "meta nfproto"),
        16: FieldNames("protocol", "meta l4proto", PROTOCOLS),
        17: FieldNames("in bridge", "meta ibrname", text=True),
        18: FieldNames("out bridge", "meta obrname", text=True),
        19: FieldNames("packet type", "meta pkttype", _PACKET_TYPES),
        20: FieldNames("processor", "meta cpu"),
        21: FieldNames("in group", "meta iifgroup"),
        22: FieldNames("out group", "meta oifgroup"),
        23: FieldNames("socket user", "meta cgroup"),
        24: FieldNames("random number", "meta random"),
        25: FieldNames("decrypted", "meta secpath", _PRESENCE),
        26: FieldNames("in kind", "meta iifkind", text=True),
        27: FieldNames("out kind", "meta oifkind", text=True),
        30: FieldNames("time", "meta time"),
        31: FieldNames("day", "meta day"),
        32: FieldNames("hour", "meta hour"),
        33: FieldNames("in slave", "meta sdif"),
        34: FieldNames("in slave name", "meta sdifname", text=True),
    },
    "ct": {
        0: FieldNames(
            "ct state", "ct state", {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
        ),
        1: FieldNames("ct direction", "ct direction", _DIRECTIONS),
        2: FieldNames(
            "ct status",
            "ct status",
            {1: "expected", 2: "seen-reply", 4: "assured", 8: "confirmed", 16: "snat", 32: "dnat", 512: "dying"},
        ),
        3: FieldNames("ct mark", "ct mark"),
        4: FieldNames("ct secmark", "ct secmark"),
        5: FieldNames("ct expiration", "ct expiration"),
        6: FieldNames("ct helper", "ct helper", text=True),
        7: FieldNames("ct family", "ct l3proto"),
        8: FieldNames("ct source", "saddr"),
        9: FieldNames("ct destination", "daddr"),
        10: FieldNames("ct protocol", "ct protocol"),
        11: FieldNames("ct sport", "proto-src"),
        12: FieldNames("ct dport", "proto-dst"),
        13: FieldNames("ct label", "ct label"),
        14: FieldNames("ct packets", "packets"),
        15: FieldNames("ct bytes", "bytes"),
        16: FieldNames("ct average", "avgpkt"),
        17: FieldNames("ct zone", "ct zone"),
        18: FieldNames("ct event", "ct event"),
        19: FieldNames("ct source", "ip saddr"),
        20: FieldNames("ct destination", "ip daddr"),
        21: FieldNames("ct source", "ip6 saddr"),
        22: FieldNames("ct destination", "ip6 daddr"),
        23: FieldNames("ct id", "ct id"),
    },
    "rt": {
        0: FieldNames("route class", "rt classid"),
        1: FieldNames("next hop", "rt ip nexthop"),
        2: FieldNames("next hop", "rt ip6 nexthop"),
        3: FieldNames("path mss", "rt mtu"),
        4: FieldNames("ipsec out", "rt ipsec", _PRESENCE),
    },
    "socket": {
        0: FieldNames("socket lookup", "socket transparent"),
        1: FieldNames("socket lookup", "socket mark"),
        2: FieldNames("socket lookup", "socket wildcard"),
        3: FieldNames("socket lookup", "socket cgroupv2"),
    },
}


_WIDEST = 64
"""Bytes of all registers together (NFT_DATA_VALUE_MAXLEN): the kernel never sends longer values."""


def of_key(kind: str, key: int, direction: str = "") -> FieldNames:
    """The names of a key; an unknown one is named by its number."""
    found = _KEYS.get(kind, {}).get(key)
    if found is None:
        return FieldNames(f"{kind} {key}", f"{kind} {key}")
    if kind == "ct" and direction and not found.nft.startswith("ct "):
        return found._replace(name=f"{found.name} {direction}", nft=f"ct {direction} {found.nft}")
    return found if found.nft.startswith("ct ") or kind != "ct" else found._replace(nft=f"ct {found.nft}")


def value(names: FieldNames, data: bytes, *, big: bool, address: bool = False, width: int = 0) -> str:
    """A value as nft writes it."""
    if names.text:
        text = data.split(bytes(1), 1)[0].decode("utf-8", "replace")
        return f'"{text}"'
    if address and len(data) in (4, 16):
        return str(reading.packed(data))
    number = int.from_bytes(data, "big" if big else sys.byteorder)
    digits = 2 + 2 * min(width, _WIDEST)
    return names.values.get(number) or (f"{number:#0{digits}x}" if width else str(number))
