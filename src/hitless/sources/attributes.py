"""A node's lease attributes in flannel's JSON: what annotations, etcd values and files have in common.

Problem: annotations, etcd and files hold the same facts, each family in a string of JSON of its own, and any of it may
be invalid. Promise: ``endpoint`` gives the checked endpoint of one family or raises ``InputError`` for that family
alone; ``backend_data`` is flannel's text, byte for byte; ``decoded`` and ``encoded`` are etcd's value (LeaseAttrs).
Unknown fields are ignored, and keys are matched without regard to case, as Go does. Pure.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping

from hitless.errors import InputError
from hitless.model import reading
from hitless.model.documents import from_json
from hitless.model.families import Address, Family, Network
from hitless.model.leases import BackendType, Endpoint, Lease
from hitless.sources.lease_source import Offer, Reach

__all__ = [
    "MOST",
    "attributes_of",
    "backend_data",
    "backend_type",
    "decoded",
    "encoded",
    "endpoint",
    "endpoints",
    "lease_from",
    "mac_of",
]

MOST = 1 << 16  # bytes of one node's attributes; flannel's have 200

_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}")
_DATA = {Family.IPV4: "BackendData", Family.IPV6: "BackendV6Data"}
_PUBLIC = {Family.IPV4: "PublicIP", Family.IPV6: "PublicIPv6"}
_DATA_FIELDS, _PUBLIC_FIELDS = ({family: name.lower() for family, name in one.items()} for one in (_DATA, _PUBLIC))
_SERVED = "vxlan, host-gw, wireguard or alloc"


def backend_type(value: object, where: str) -> BackendType:
    """The backend that a node names; raises ``InputError``."""
    try:
        return BackendType(value) if isinstance(value, str) else BackendType("")
    except ValueError as error:
        raise InputError(f"the backend {reading.shown(value)} is not served", where=where, expected=_SERVED) from error


def mac_of(value: object, where: str) -> str:
    """A unicast MAC, lower case with colons; raises ``InputError``. Go's forms: colons, dashes or dots."""
    if not isinstance(value, str) or not _MAC.fullmatch(value):
        raise InputError(f"{reading.shown(value)} is not a MAC", where=where, expected="one like 12:c6:65:89:b4:e3")
    digits = re.sub(r"[:.-]", "", value).lower()
    if int(digits[:2], 16) & 1:
        raise InputError(f"{value} is a multicast MAC", where=where, expected="a unicast one")
    if not int(digits, 16):
        raise InputError("the MAC is zero", where=where, expected="a unicast one")
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def endpoint(
    backend: BackendType, family: Family, subnet: Network, public_ip: Address, data: object, where: str
) -> Endpoint:
    """The endpoint that a backend's data (as JSON's values) make; raises ``InputError``."""
    if public_ip.is_unspecified or public_ip.is_multicast or public_ip.is_loopback:
        message = f"{public_ip} is not a node address"
        raise InputError(message, where=f"{where}: public IP", expected="a unicast address of the underlay")
    if backend in (BackendType.HOST_GW, BackendType.ALLOC):
        return Endpoint(subnet, public_ip)
    if not isinstance(data, Mapping):
        message = f"{reading.shown(data)} is not an object"
        raise InputError(message, where=f"{where}: {_DATA[family]}", expected=f"{backend}'s data")
    fields = {str(key).lower(): value for key, value in data.items()}
    if backend is BackendType.VXLAN:
        vni = reading.whole(fields.get("vni", 0) or 0, where=f"{where}: VNI", most=(1 << 24) - 1)
        return Endpoint(subnet, public_ip, mac=mac_of(fields.get("vtepmac"), f"{where}: VtepMAC"), vni=vni)
    port = reading.whole(fields.get("port", 0) or 0, where=f"{where}: Port", most=65535)
    return Endpoint(subnet, public_ip, public_key=_key(fields.get("publickey"), f"{where}: PublicKey"), port=port)


def _key(value: object, where: str) -> str:
    try:
        raw = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32 or not any(raw):
        raise InputError(f"{reading.shown(value)} is not a WireGuard key", where=where, expected="32 bytes in base64")
    return base64.b64encode(raw).decode()


def endpoints(
    backend: BackendType,
    subnets: Mapping[Family, Network],
    public: Mapping[Family, object],
    data: Mapping[Family, object],
) -> tuple[dict[Family, Endpoint], tuple[str, ...]]:
    """The endpoints of the families that have a subnet, and why the others have none.

    A WireGuard peer may be reached by an address of the other family (one device for both), so a missing address of
    one family is the other's there.
    """
    found: dict[Family, Endpoint] = {}
    why: list[str] = []
    for family, subnet in subnets.items():
        try:
            found[family] = endpoint(
                backend, family, subnet, _public(backend, family, public), data.get(family), family.value
            )
        except InputError as error:
            why.append(str(error))
    return found, tuple(why)


def _public(backend: BackendType, family: Family, public: Mapping[Family, object]) -> Address:
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    where = f"{family.value}: public IP"
    for one in (family, other) if backend is BackendType.WIREGUARD else (family,):
        if (text := public.get(one)) not in (None, "", "0.0.0.0", "::"):
            return reading.address(text, where=where, family=one)
    return reading.address(public.get(family), where=where, family=family)


def backend_data(backend: BackendType, reach: Reach | None) -> str:
    """The text that flannel's Go writes for one family."""
    data = _data(backend, reach)
    return "null" if data is None else _text(data)


def _data(backend: BackendType, reach: Reach | None) -> dict[str, object] | None:
    if reach is not None and backend is BackendType.VXLAN:
        return {"VNI": reach.vni, "VtepMAC": reach.mac}
    if reach is not None and backend is BackendType.WIREGUARD:
        return {"PublicKey": reach.public_key, "Port": reach.port}
    return None


def attributes_of(offer: Offer) -> dict[str, object]:
    """flannel's LeaseAttrs as Go encodes them: empty fields are left out, a missing IPv4 address is 0.0.0.0."""
    four, six = offer.reach.get(Family.IPV4), offer.reach.get(Family.IPV6)
    attributes: dict[str, object] = {
        "PublicIP": str(four.public_ip) if four is not None and four.public_ip.version == 4 else "0.0.0.0",
        "PublicIPv6": str(six.public_ip) if six is not None and six.public_ip.version == 6 else None,
        "BackendType": offer.backend.value,
    }
    for family, reach in ((Family.IPV4, four), (Family.IPV6, six)):
        if (data := _data(offer.backend, reach)) is not None:
            attributes[_DATA[family]] = data
    return attributes


def encoded(offer: Offer) -> str:
    """flannel's LeaseAttrs as JSON: etcd's value."""
    return _text(attributes_of(offer))


def decoded(node: str, text: bytes | str, subnets: Mapping[Family, Network]) -> tuple[Lease | None, tuple[str, ...]]:
    """The lease of an etcd value for these subnets, and what is wrong with it. Raises ``InputError`` where nothing in
    it is usable."""
    try:
        value = from_json(text, most=MOST)
    except ValueError as error:
        raise InputError(f"no JSON ({error})", where=node, expected="flannel's lease attributes") from error
    return lease_from(node, value, subnets)


def lease_from(node: str, value: object, subnets: Mapping[Family, Network]) -> tuple[Lease | None, tuple[str, ...]]:
    """The same from decoded JSON."""
    if not isinstance(value, Mapping):
        raise InputError("no JSON object", where=node, expected="flannel's lease attributes")
    fields = {str(key).lower(): one for key, one in value.items()}
    backend = backend_type(fields.get("backendtype"), f"{node}: BackendType")
    public = {family: fields.get(name) for family, name in _PUBLIC_FIELDS.items()}
    data = {family: fields.get(name) for family, name in _DATA_FIELDS.items()}
    found, why = endpoints(backend, subnets, public, data)
    return (Lease(node, backend, found) if found else None), why


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
