"""Events that say only which interfaces or addresses of a network namespace changed, and must be read again.

Promise: ``drain`` receives what is there and returns the interfaces concerned; ``None``: the kernel dropped events, and
any may have changed.
"""

from __future__ import annotations

import struct

from hitless.errors import EventsLostError
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.netlink import ROUTE, Socket, messages
from hitless.kernel.rtnetlink import formats

__all__ = ["AddressEvents"]

_GROUPS = (formats.GROUP_LINK, formats.GROUP_IPV4_ADDR, formats.GROUP_IPV6_ADDR)
_INDEX = struct.Struct("=i")  # at the same place in struct ifinfomsg and struct ifaddrmsg
_AT_MOST = 1000  # messages of one call, so that a flood does not keep the caller


class AddressEvents:
    """A subscription; ``fileno`` is for selectors."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._socket = Socket(ROUTE, namespace, groups=_GROUPS, timeout=0, subject="changes of interfaces")

    def fileno(self) -> int:
        """The file descriptor."""
        return self._socket.fileno()

    def drain(self) -> set[int] | None:
        """Receive the events that are there; the numbers of the interfaces concerned."""
        found: set[int] = set()
        for _ in range(_AT_MOST):
            try:
                data = self._socket.receive(wait=False)
            except EventsLostError:
                return None
            if data is None:
                break
            found.update(_INDEX.unpack_from(one.payload, 4)[0] for one in messages(data) if len(one.payload) >= 8)
        return found

    def close(self) -> None:
        """Close it."""
        self._socket.close()
