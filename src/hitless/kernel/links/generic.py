"""WireGuard's generic netlink messages to values and back (include/uapi/linux/wireguard.h, genetlink.h).

Promise: exact; what the kernel splits over several messages of one dump (peers, and one peer's allowed IPs) is put
together again; bytes that it never sends are ``KernelError``. Keys are bytes here and base64 in values; private and
preshared keys are in no ``repr``. Next stage: ``wireguard``.
"""

from __future__ import annotations

import base64
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from hitless.errors import KernelError
from hitless.kernel.messages import attribute, attribute_list, attributes, nested, text, u32
from hitless.kernel.netlink import Message
from hitless.kernel.ports import only_ours
from hitless.model.families import Address, Network
from hitless.model.links import WireguardPeer
from hitless.model.reading import packed, packed_network

__all__ = ["CONTROL", "Reading", "ask_device", "ask_family", "device", "family", "reading", "set_device", "set_peer"]

CONTROL = 0x10
"""The message type of the family that knows the others (GENL_ID_CTRL)."""

_GENL = struct.Struct("=BBH")  # struct genlmsghdr: cmd, version, reserved
_CTRL_GETFAMILY, _CTRL_FAMILY_ID, _CTRL_FAMILY_NAME = 3, 1, 2
_GET_DEVICE, _SET_DEVICE, _VERSION = 0, 1, 1
_DEVICE_IFNAME, _DEVICE_PRIVATE_KEY, _DEVICE_PUBLIC_KEY, _DEVICE_LISTEN_PORT, _DEVICE_PEERS = 2, 3, 4, 6, 8
_PEER_PUBLIC_KEY, _PEER_PRESHARED_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE = 1, 2, 3, 4, 5
_PEER_LAST_HANDSHAKE, _PEER_ALLOWED = 6, 9
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_LENGTH = 1, 2, 3
_REMOVE_ME, _REPLACE_ALLOWED = 1, 2

_U16, _U8, _PORT, _TIME = struct.Struct("=H"), struct.Struct("=B"), struct.Struct(">H"), struct.Struct("=qq")
_KEY = 32
_NO_KEY = bytes(_KEY)
_ALIVE = 180  # seconds: no session is older (REJECT_AFTER_TIME of WireGuard's protocol)


@dataclass(frozen=True, slots=True)
class Reading:
    """A device as the kernel has it. ``private_key`` is empty where none is set."""

    port: int = 0
    public_key: str = ""
    private_key: bytes = field(default=b"", repr=False)
    peers: tuple[WireguardPeer, ...] = ()


@dataclass(slots=True)
class _Peer:
    key: bytes
    preshared: bytes = field(default=_NO_KEY, repr=False)
    endpoint: tuple[Address, int] | None = None
    keepalive: int = 0
    handshake: int = 0
    allowed: set[Network] = field(default_factory=set)


# --- the family's number


def ask_family(name: str) -> bytes:
    """A request for a family's number; a kernel that has it as a module loads it."""
    return _GENL.pack(_CTRL_GETFAMILY, 1, 0) + text(_CTRL_FAMILY_NAME, name)


@only_ours("look up", "a generic netlink family")
def family(replies: Iterable[Message]) -> int:
    """The number in the replies; 0: not reported."""
    for one in replies:
        found = attributes(one.payload, _GENL.size)
        if _CTRL_FAMILY_ID in found:
            return int(_U16.unpack(found[_CTRL_FAMILY_ID])[0])
    return 0


# --- reading


def ask_device(name: str) -> bytes:
    """The request of a dump of one device with its peers."""
    return _GENL.pack(_GET_DEVICE, _VERSION, 0) + text(_DEVICE_IFNAME, name)


def device(name: str, replies: Iterable[Message], preshared: bytes, now: float) -> Reading:
    """All messages of a dump. ``preshared``: the key that peers should have, empty: none; ``now``: the wall clock in
    seconds, in which the kernel reports the last handshake."""
    with only_ours("read", f"the WireGuard device {name}"):
        return reading(name, (one.payload for one in replies), preshared, now)


def reading(name: str, payloads: Iterable[bytes], preshared: bytes, now: float) -> Reading:
    """The same of the messages' payloads alone."""
    port, public, private = 0, b"", b""
    peers: dict[bytes, _Peer] = {}
    for payload in payloads:
        values = attributes(payload, _GENL.size)
        if _DEVICE_LISTEN_PORT in values:
            (port,) = _U16.unpack(values[_DEVICE_LISTEN_PORT])
        public, private = values.get(_DEVICE_PUBLIC_KEY, public), values.get(_DEVICE_PRIVATE_KEY, private)
        for _, raw in attribute_list(values.get(_DEVICE_PEERS, b"")):
            _peer(attributes(raw), peers)
    if any(len(one) not in (0, _KEY) for one in (public, private)):
        raise KernelError("read", f"the WireGuard device {name}", reason="a key that is not of 32 bytes")
    made = tuple(_value(name, one, preshared, now) for one in peers.values())
    return Reading(port, _base64(public), private if any(private) else b"", made)


def _peer(values: dict[int, bytes], peers: dict[bytes, _Peer]) -> None:
    """One peer; in the next message it may go on, with its key and more allowed IPs alone."""
    key = values.get(_PEER_PUBLIC_KEY, b"")
    if len(key) != _KEY:
        raise KernelError("read", "a WireGuard peer", reason=f"a key of {len(key)} bytes")
    one = peers.setdefault(key, _Peer(key))
    one.preshared = values.get(_PEER_PRESHARED_KEY, one.preshared)
    if _PEER_ENDPOINT in values:
        one.endpoint = _endpoint(values[_PEER_ENDPOINT])
    if _PEER_KEEPALIVE in values:
        (one.keepalive,) = _U16.unpack(values[_PEER_KEEPALIVE])
    if _PEER_LAST_HANDSHAKE in values:
        one.handshake = _TIME.unpack(values[_PEER_LAST_HANDSHAKE])[0]
    for _, raw in attribute_list(values.get(_PEER_ALLOWED, b"")):
        found = attributes(raw)
        one.allowed.add(packed_network(found[_ALLOWED_ADDRESS], _U8.unpack(found[_ALLOWED_LENGTH])[0]))


def _value(name: str, one: _Peer, preshared: bytes, now: float) -> WireguardPeer:
    address, port = one.endpoint or (None, 0)
    # another preshared key than it should have is as none
    right = one.preshared == preshared if preshared else any(one.preshared)
    alive = 0 <= now - one.handshake < _ALIVE
    return WireguardPeer(
        name, _base64(one.key), address, port, frozenset(one.allowed), one.keepalive, right, alive
    )  # fmt: skip


def _base64(key: bytes) -> str:
    return base64.b64encode(key).decode() if any(key) else ""


def _endpoint(raw: bytes) -> tuple[Address, int] | None:
    """struct sockaddr_in or sockaddr_in6."""
    (kind,) = _U16.unpack_from(raw)
    (port,) = _PORT.unpack_from(raw, 2)
    if kind == socket.AF_INET and len(raw) >= 8:
        return packed(raw[4:8]), port
    if kind == socket.AF_INET6 and len(raw) >= 24:
        return packed(raw[8:24]), port
    return None


# --- writing


def set_device(name: str, private: bytes, port: int) -> bytes:
    """Its key and port; peers stay as they are."""
    return _set(name, attribute(_DEVICE_PRIVATE_KEY, private) + attribute(_DEVICE_LISTEN_PORT, _U16.pack(port)))


def set_peer(peer: WireguardPeer, preshared: bytes, *, remove: bool = False) -> bytes:
    """Make the peer so, or take it away. An allowed IP that another peer had moves to this one in the same step."""
    parts = [attribute(_PEER_PUBLIC_KEY, base64.b64decode(peer.public_key))]
    if remove:
        parts.append(u32(_PEER_FLAGS, _REMOVE_ME))
    else:
        parts.append(u32(_PEER_FLAGS, _REPLACE_ALLOWED))
        parts.append(attribute(_PEER_PRESHARED_KEY, preshared if peer.preshared and preshared else _NO_KEY))
        if peer.endpoint is not None:
            parts.append(attribute(_PEER_ENDPOINT, _socket_address(peer.endpoint, peer.port)))
        parts.append(attribute(_PEER_KEEPALIVE, _U16.pack(peer.keepalive)))
        ordered = sorted(peer.allowed, key=lambda one: (one.version, int(one.network_address), one.prefixlen))
        parts.append(nested(_PEER_ALLOWED, *(nested(0, *_allowed(one)) for one in ordered)))
    return _set(peer.device, nested(_DEVICE_PEERS, nested(0, *parts)))


def _set(name: str, rest: bytes) -> bytes:
    return _GENL.pack(_SET_DEVICE, _VERSION, 0) + text(_DEVICE_IFNAME, name) + rest


def _socket_address(address: Address, port: int) -> bytes:
    if address.version == 4:
        return _U16.pack(socket.AF_INET) + _PORT.pack(port) + address.packed + bytes(8)
    return _U16.pack(socket.AF_INET6) + _PORT.pack(port) + bytes(4) + address.packed + bytes(4)


def _allowed(one: IPv4Network | IPv6Network) -> tuple[bytes, bytes, bytes]:
    number = socket.AF_INET if one.version == 4 else socket.AF_INET6
    return (
        attribute(_ALLOWED_FAMILY, _U16.pack(number)),
        attribute(_ALLOWED_ADDRESS, one.network_address.packed),
        attribute(_ALLOWED_LENGTH, _U8.pack(one.prefixlen)),
    )
