"""flannel's ``net-conf.json``.

Problem: a typo in this file must never reach the kernel. Promise: the file is read whole, every field that concerns us
is checked, and one message names file, field and expectation, before anything is changed. What flanneld accepts is
accepted: ignored are the fields of a family that is switched off (every single-stack K3s node has a network ::/0
there), how flannel's etcd mode would cut the network into subnets (SubnetLen and its like: here the subnet comes from
Kubernetes, a flag or subnet.env), and fields that a later flannel may add. ``NetConf.unused`` names the fields that are
set without effect. The defaults are flannel's: EnableIPv4 true, EnableIPv6 false, EnableNFTables false. This module
reads nothing of the node: that is ``hitless.sources.subnets``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model import reading
from hitless.model.families import Address, Family, Network, family_of
from hitless.sources.cuts import Cutting

__all__ = ["BACKENDS", "NetConf", "parse_netconf", "read_netconf"]

BACKENDS = (
    "alloc", "awsvpc", "alivpc", "extension", "gce", "host-gw", "ipip", "ipsec", "tencentvpc", "tencent-vpc", "udp",
    "vxlan", "wireguard", "ali-vpc", "aws-vpc",
)  # fmt: skip
"""Overlay backends of flannel (its pkg/backend). Only their names matter here: the overlay is a later stage."""

_KEYS = {Family.IPV4: ("EnableIPv4", "Network", True), Family.IPV6: ("EnableIPv6", "IPv6Network", False)}
_PARTS = ("SubnetLen", "SubnetMin", "SubnetMax")
_WITH_MTU = ("vxlan", "wireguard")  # flannel's other backends ignore it
_LARGEST = (1 << 64) - 1  # Go's uint
_LONGEST = 1 << 20  # what Kubernetes lets a ConfigMap hold


@dataclass(frozen=True, slots=True)
class NetConf:
    """The file's configuration. ``networks`` has the enabled families only; ``where`` is the file's name for messages;
    ``unused``: known fields that have no effect, each with the reason. ``cuttings``: SubnetLen, SubnetMin and SubnetMax
    of each enabled family, which count where nodes take their subnets themselves (etcd, --lease-dir). ``backend``: the
    fields of Backend unchanged, their names in lower case."""

    networks: Mapping[Family, Network]
    nftables: bool = False
    overlay: str = "udp"
    mtu: int | None = None
    where: str = field(default="net-conf.json", compare=False)
    unused: tuple[str, ...] = field(default=(), compare=False)
    cuttings: Mapping[Family, Cutting] = field(default_factory=dict)
    backend: Mapping[str, object] = field(default_factory=dict)


def read_netconf(path: Path, text: str = "", *, cuts: bool = False) -> NetConf:
    """Read and check a file, or ``text`` in its place; raises ``InputError`` that names where it came from."""
    if text:
        return parse_netconf(text, where="--net-config", cuts=cuts)
    try:
        text = files.read(path, most=_LONGEST).decode("utf-8", "replace")  # as Go's decoder does
    except FileNotFoundError as error:
        raise InputError(
            "the file is not there", where=str(path), expected="flannel's net-conf.json (see --net-config-path)"
        ) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), expected="a JSON file") from error
    return parse_netconf(text, where=str(path), cuts=cuts)


def parse_netconf(text: str, *, where: str = "net-conf.json", cuts: bool = False) -> NetConf:
    """Check the text of a net-conf.json; raises ``InputError`` naming ``where``, the field and what was expected.

    ``cuts``: this node takes its subnet itself, so that SubnetLen and its like have an effect.
    """
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
    cuttings: dict[Family, Cutting] = {}
    unused: list[str] = []
    for family, (switch, key, default) in _KEYS.items():
        if _boolean(fields, switch, default, where):
            networks[family] = _network(fields, key, switch, family, where)
            cuttings[family], parts = _parts(fields, family, where)
            unused += [] if cuts else parts
        else:
            prefix = "" if family is Family.IPV4 else "IPv6"
            named = [name for name in (key, *(prefix + part for part in _PARTS)) if fields.get(name.lower())]
            unused += [f"{name}: {switch} is off" for name in named]
    if not networks:
        raise InputError(
            "neither family is enabled", where=f"{where}: EnableIPv4, EnableIPv6", expected="at least one true"
        )
    overlay, mtu, more = _backend(fields, where)
    nftables = _boolean(fields, "EnableNFTables", False, where)
    return NetConf(networks, nftables, overlay, mtu, where, (*unused, *more), cuttings, _inner(fields))


def _boolean(fields: Mapping[str, object], key: str, default: bool, where: str) -> bool:
    value = fields.get(key.lower())
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InputError(f"{value!r}", where=f"{where}: {key}", expected="true or false")
    return value


def _network(fields: Mapping[str, object], key: str, switch: str, family: Family, where: str) -> Network:
    value = fields.get(key.lower())
    where = f"{where}: {key}"
    if value is None or value == "":
        raise InputError("missing", where=where, expected=f"a network, because {switch} is on")
    example = "10.42.0.0/16" if family is Family.IPV4 else "fd42::/48"
    expected = f"an {'IPv4' if family is Family.IPV4 else 'IPv6'} network like {example}"
    found = reading.network(value, where=where, expected=expected, host_bits=True)
    if family_of(found) is not family:
        raise InputError(f"{reading.shown(value)} is of the other family", where=where, expected=expected)
    if found.prefixlen == 0:
        raise InputError(f"{reading.shown(value)} is everything", where=where, expected=expected)
    return found


def _parts(fields: Mapping[str, object], family: Family, where: str) -> tuple[Cutting, list[str]]:
    """SubnetLen, SubnetMin and SubnetMax of an enabled family, as flannel reads them; and the message for each where it
    has no effect.

    flannel: pkg/subnet/config.go, whose CheckNetworkConfig is for subnets that are cut by means of etcd only.
    """
    prefix = "" if family is Family.IPV4 else "IPv6"
    found: list[str] = []
    length, ends = 0, dict[str, Address]()
    for part in _PARTS:
        key = prefix + part
        value = fields.get(key.lower())
        if value is None or value == "":
            continue
        if part == "SubnetLen":
            if not isinstance(value, int):
                raise _wrong_type(value, f"{where}: {key}", "a whole number")
            length = reading.whole(value, where=f"{where}: {key}", most=_LARGEST, expected="a whole number")
        else:
            ends[part] = reading.address(value, where=f"{where}: {key}", expected=f"an {family} address", family=family)
        if value:
            found.append(f"{key}: the node's subnet is not cut here, but given (Kubernetes, --node-subnet, subnet.env)")
    return Cutting(length, ends.get("SubnetMin"), ends.get("SubnetMax")), found


def _wrong_type(value: object, where: str, expected: str) -> InputError:
    return InputError(reading.shown(value), where=where, expected=expected)


def _inner(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields of Backend, by name in lower case: Go's decoder matches keys without regard to case."""
    backend = fields.get("backend")
    return {str(key).lower(): value for key, value in backend.items()} if isinstance(backend, dict) else {}


def _backend(fields: Mapping[str, object], where: str) -> tuple[str, int | None, tuple[str, ...]]:
    """The overlay's type, its MTU, and what has no effect."""
    backend = fields.get("backend")
    if backend is None:
        return "udp", None, ()  # flannel's default
    if not isinstance(backend, dict):
        raise _wrong_type(backend, f"{where}: Backend", 'an object like {"Type": "vxlan"}')
    inner = _inner(fields)
    kind = inner.get("type", "")
    if not isinstance(kind, str) or kind.lower() not in BACKENDS:
        known = ", ".join(sorted(BACKENDS))
        message = f"unknown backend {reading.shown(kind)}"
        raise InputError(message, where=f"{where}: Backend.Type", expected=f"one of {known}")
    mtu = inner.get("mtu")
    if kind.lower() not in _WITH_MTU:
        return kind.lower(), None, (f"Backend.MTU: the backend {kind.lower()} has none",) if mtu else ()
    if mtu is None:
        return kind.lower(), None, ()
    if not isinstance(mtu, int):
        raise _wrong_type(mtu, f"{where}: Backend.MTU", "a whole number of bytes")
    size = reading.whole(mtu, where=f"{where}: Backend.MTU", most=65535, expected="a whole number of bytes")
    return kind.lower(), size or None, ()
