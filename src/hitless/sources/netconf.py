"""flannel's ``net-conf.json``.

Problem: a typo in this file must never reach the kernel. Promise: the file is read whole, every field that concerns
us is checked, and one message names file, field and expectation; nothing is changed before. Fields that a later
flannel may add are left alone (flannel ignores them too). The defaults are flannel's: EnableIPv4 true, EnableIPv6
false, EnableNFTables false. It never looks at the node: that is ``hitless.sources.subnets``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from hitless.errors import InputError
from hitless.model.families import Family, Network

__all__ = ["BACKENDS", "NetConf", "parse_netconf", "read_netconf"]

BACKENDS = (
    "alloc", "awsvpc", "alivpc", "extension", "gce", "host-gw", "ipip", "ipsec", "tencentvpc", "tencent-vpc", "udp",
    "vxlan", "wireguard", "ali-vpc", "aws-vpc",
)  # fmt: skip
"""Overlay backends of flannel (its pkg/backend). Only their names matter here: the overlay is a later stage."""

_KEYS = {Family.IPV4: ("EnableIPv4", "Network", True), Family.IPV6: ("EnableIPv6", "IPv6Network", False)}


@dataclass(frozen=True, slots=True)
class NetConf:
    """What the file says. ``networks`` has the enabled families only; ``where`` is the file's name for messages."""

    networks: Mapping[Family, Network]
    nftables: bool = False
    overlay: str = "udp"
    mtu: int | None = None
    where: str = field(default="net-conf.json", compare=False)


def read_netconf(path: Path, text: str = "") -> NetConf:
    """Read and check a file, or the text that stands for it; raises ``InputError`` that names where it came from."""
    if text:
        return parse_netconf(text, where="--net-config")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            "the file is not there", where=str(path), expected="flannel's net-conf.json (see --net-config-path)"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path), expected="a JSON file in UTF-8") from error
    return parse_netconf(text, where=str(path))


def parse_netconf(text: str, *, where: str = "net-conf.json") -> NetConf:
    """Check the text of a net-conf.json; raises ``InputError`` naming ``where``, the field and what was expected."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"not JSON ({error})", where=f"{where}{line}", expected="one JSON object") from error
    if not isinstance(data, dict):
        raise InputError(f"a JSON {type(data).__name__}", where=where, expected="one JSON object")
    # Go's decoder matches keys without regard to case, and so must we
    fields = {str(key).lower(): value for key, value in data.items()}
    networks: dict[Family, Network] = {}
    for family, (switch, key, default) in _KEYS.items():
        enabled = _boolean(fields, switch, default, where)
        network = _network(fields, key, family, where)
        if enabled and network is None:
            raise InputError("missing", where=f"{where}: {key}", expected=f"a network, because {switch} is on")
        if enabled and network is not None:
            networks[family] = network
            _check_lengths(fields, family, network, where)
    if not networks:
        raise InputError(
            "neither family is enabled", where=f"{where}: EnableIPv4, EnableIPv6", expected="at least one true"
        )
    overlay, mtu = _backend(fields, where)
    return NetConf(networks, _boolean(fields, "EnableNFTables", False, where), overlay, mtu, where)


def _boolean(fields: Mapping[str, object], key: str, default: bool, where: str) -> bool:
    value = fields.get(key.lower())
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InputError(f"{value!r}", where=f"{where}: {key}", expected="true or false")
    return value


def _network(fields: Mapping[str, object], key: str, family: Family, where: str) -> Network | None:
    value = fields.get(key.lower())
    if value is None or value == "":
        return None
    kind = IPv4Network if family is Family.IPV4 else IPv6Network
    example = "10.42.0.0/16" if family is Family.IPV4 else "fd42::/48"
    expected = f"an {'IPv4' if family is Family.IPV4 else 'IPv6'} network like {example}"
    if not isinstance(value, str) or "/" not in value:
        raise InputError(f"{value!r}", where=f"{where}: {key}", expected=expected)
    try:
        network = ip_network(value, strict=False)
    except ValueError as error:
        raise InputError(f"{value!r} is no network", where=f"{where}: {key}", expected=expected) from error
    if not isinstance(network, kind):
        raise InputError(f"{value!r} is of the other family", where=f"{where}: {key}", expected=expected)
    if network.prefixlen == 0:
        raise InputError(f"{value!r} is everything", where=f"{where}: {key}", expected=expected)
    return network


def _check_lengths(fields: Mapping[str, object], family: Family, network: Network, where: str) -> None:
    """SubnetLen, SubnetMin and SubnetMax must fit the network (flannel: pkg/subnet/config.go)."""
    prefix = "" if family is Family.IPV4 else "IPv6"
    longest = 30 if family is Family.IPV4 else 126
    key = f"{prefix}SubnetLen"
    length = fields.get(key.lower())
    if length is not None:
        expected = f"a whole number from {network.prefixlen + 2} to {longest} for {network}"
        if isinstance(length, bool) or not isinstance(length, int):
            raise InputError(f"{length!r}", where=f"{where}: {key}", expected=expected)
        if length and not network.prefixlen + 2 <= length <= longest:
            raise InputError(str(length), where=f"{where}: {key}", expected=expected)
    for key in (f"{prefix}SubnetMin", f"{prefix}SubnetMax"):
        value = fields.get(key.lower())
        if value is None or value == "":
            continue
        try:
            address = ip_address(value) if isinstance(value, str) else None
        except ValueError:
            address = None
        if address is None or address.version != network.version or address not in network:
            raise InputError(f"{value!r}", where=f"{where}: {key}", expected=f"an address inside {network}")


def _backend(fields: Mapping[str, object], where: str) -> tuple[str, int | None]:
    backend = fields.get("backend")
    if backend is None:
        return "udp", None  # flannel's default
    if not isinstance(backend, dict):
        raise InputError(f"{backend!r}", where=f"{where}: Backend", expected='an object like {"Type": "vxlan"}')
    inner = {str(key).lower(): value for key, value in backend.items()}
    kind = inner.get("type", "")
    if not isinstance(kind, str) or kind.lower() not in BACKENDS:
        known = ", ".join(sorted(BACKENDS))
        raise InputError(f"unknown backend {kind!r}", where=f"{where}: Backend.Type", expected=f"one of {known}")
    mtu = inner.get("mtu")
    if mtu is not None and (isinstance(mtu, bool) or not isinstance(mtu, int) or not 0 <= mtu <= 65535):
        raise InputError(f"{mtu!r}", where=f"{where}: Backend.MTU", expected="a whole number of bytes")
    return kind.lower(), mtu or None
