"""WireGuard devices of one namespace: their key, port and peers, by generic netlink.

Problem: rtnetlink makes the device, but does not report keys and peers, and there are no events of their changes.
Promise: each peer is a request of its own, many in one message, so that a refused one does not affect others; keys are
read from values, written to the kernel, and appear nowhere else. A kernel without WireGuard is ``MissingError``.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hitless.errors import KernelError, MissingError, NotFound
from hitless.kernel.links import generic
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.netlink import Socket
from hitless.model.curve25519 import clamped, public_key
from hitless.model.links import Device, LinkChange, Verb, WireguardPeer

__all__ = ["Secrets", "WireguardDevices", "require"]

_GENERIC = 16  # NETLINK_GENERIC
_NAME = "wireguard"


@dataclass(frozen=True, slots=True)
class Secrets:
    """This node's private key, and the key that all nodes share beside it (flannel's PSK; empty: none)."""

    private_key: bytes = field(repr=False)
    preshared: bytes = field(default=b"", repr=False)

    @property
    def public_key(self) -> str:
        """The key that peers need."""
        return base64.b64encode(public_key(self.private_key)).decode()


def require(namespace: Namespace = HERE) -> None:
    """Raises ``MissingError`` where the kernel has no WireGuard (it loads its module if there is one)."""
    with WireguardDevices(namespace) as devices:
        devices.family()


class WireguardDevices:
    """A context manager; one thread at a time. The socket is opened at the first use."""

    def __init__(self, namespace: Namespace = HERE, secrets: Secrets | None = None) -> None:
        self._namespace, self._secrets = namespace, secrets
        self._socket: Socket | None = None
        self._family = 0

    def __enter__(self) -> WireguardDevices:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; devices stay."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def family(self) -> int:
        """The number that the kernel gave WireGuard's messages."""
        if not self._family:
            request, subject = generic.ask_family(_NAME), "WireGuard in this kernel"
            try:
                replies = self._open().request(generic.CONTROL, 0, request, operation="look up", subject=subject)
                self._family = generic.family(replies)
            except NotFound as error:
                raise _missing() from error
            if not self._family:
                raise _missing()
        return self._family

    def read(self, name: str) -> generic.Reading:
        """The device with its peers; raises ``NotFound`` where it does not exist."""
        family, subject = self.family(), f"the WireGuard device {name}"
        try:
            found = self._open().dump(family, generic.ask_device(name), operation="read", subject=subject)
        except NotFound:
            self._family = 0  # the module may have been loaded again, with another number
            raise
        preshared = self._secrets.preshared if self._secrets is not None else b""
        return generic.device(name, found, preshared, time.time())

    def configure(self, device: Device) -> None:
        """Give the device its key and port. Raises ``KernelError``, also where its private key is not known here."""
        wanted = device.wireguard
        assert wanted is not None
        if self._secrets is None or self._secrets.public_key != wanted.public_key:
            raise KernelError("configure", str(device), reason="its private key is not here")
        request = generic.set_device(device.name, clamped(self._secrets.private_key), wanted.port)
        self._open().request(self.family(), 0, request, operation="configure", subject=str(device))

    def write(self, changes: Sequence[LinkChange]) -> list[KernelError | MissingError | None]:
        """Peers; why each was refused, in order."""
        family = self.family()
        preshared = self._secrets.preshared if self._secrets is not None else b""
        parts: list[tuple[int, int, bytes]] = []
        for change in changes:
            peer = change.object
            assert isinstance(peer, WireguardPeer)
            parts.append((family, 0, generic.set_peer(peer, preshared, remove=change.verb is Verb.REMOVE)))
        return self._open().requests(parts, operation="write", subject="WireGuard peers")

    def _open(self) -> Socket:
        if self._socket is None:
            self._socket = Socket(_GENERIC, self._namespace)
        return self._socket


def _missing() -> MissingError:
    return MissingError(
        "this kernel has no WireGuard, which Backend.Type wireguard needs",
        remedy="load the module (modprobe wireguard), use a kernel with CONFIG_WIREGUARD (Linux 5.6 and later), or "
        "another Backend.Type: vxlan, host-gw",
    )
