"""What rules depend on besides the rule set: ipsets, interfaces, IPsec policies, accounting objects, xt_recent lists.

Problem: this is in no rule set, no nf_tables event reports its changes, and the evaluator needs it at every change of
the rules. Promise: ``NodeSurroundings`` reads each fact once and caches it; ``refresh`` reads all of them again and
returns whether one has changed, so that a caller notices a change within its own interval. What is not known is
``None``. For one thread. Next stages: ``hitless.watch``, ``hitless.guard``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from hitless.errors import HitlessError, NotFound
from hitless.kernel import netlink
from hitless.kernel.ipsets import Ipsets
from hitless.kernel.namespaces import HERE, Namespace, inside
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.sets import is_limited
from hitless.kernel.rtnetlink import formats
from hitless.kernel.rtnetlink.reader import RtnetlinkReader
from hitless.model.families import Address, Family
from hitless.model.packets import Packet

__all__ = ["NodeSurroundings"]

_XFRM, _GETPOLICY = 6, 0x15
_POLICY_ID = 64  # struct xfrm_userpolicy_id
_ACCOUNTING, _ACCOUNT_GET, _ACCOUNT_NAME, _ACCOUNT_FLAGS = 7, 1, 1, 5
_MOST = 4096  # cached facts

_T = TypeVar("_T")
_Key = tuple[object, ...]


class NodeSurroundings:
    """The facts of one namespace; ``close`` it."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._namespace = namespace
        self._sets = Ipsets(namespace)
        self._socket: netlink.Socket | None = None
        self.version = 0
        self._known: dict[_Key, tuple[Callable[[], object], object]] = {}

    def close(self) -> None:
        """Close its sockets."""
        self._sets.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def refresh(self) -> bool:
        """Read all cached facts again; whether one has changed. Those of rules that are gone are read too, until there
        are too many."""
        if len(self._known) > _MOST:
            self._known.clear()
            self.version += 1
            return True
        changed = False
        for key, (ask, old) in list(self._known.items()):
            new = ask()
            if new != old:
                self._known[key] = (ask, new)
                changed = True
        self.version += changed
        return changed

    @property
    def asked(self) -> int:
        """How many facts ``refresh`` reads."""
        return len(self._known)

    def _remembered(self, key: _Key, ask: Callable[[], _T]) -> _T:
        found = self._known.get(key)
        if found is None:
            answer = ask()
            self._known[key] = (ask, answer)
            return answer
        return found[1]  # type: ignore[return-value]  # the key says which question it is

    # --- ipsets

    def set_name(self, number: int) -> str | None:
        """The name of the ipset that rules refer to by this number."""
        return self._remembered(("name", number), lambda: self._sets.name(number))

    def in_set(self, number: int, directions: Sequence[str], packet: Packet) -> bool | None:
        """Whether the ipset contains the packet's addresses, ports or interfaces, as ``directions`` choose them."""
        chosen = tuple(directions)
        what = (
            packet.src,
            packet.dst,
            packet.protocol,
            packet.sport,
            packet.dport,
            packet.iif,
            packet.oif,
            packet.reply,
        )

        def ask() -> bool | None:
            name = self.set_name(number)
            return None if name is None else self._sets.holds(name, chosen, packet)

        return self._remembered(("set", number, chosen, *what), ask)

    def has_element(self, family: str, table: str, name: str, key: tuple[bytes, ...]) -> bool | None:
        """Whether an nf_tables set contains a key, given part by part, now."""
        asked = ("element", family, table, name, key)
        return self._remembered(asked, lambda: self._read_element(family, table, name, key))

    def _read_element(self, family: str, table: str, name: str, key: tuple[bytes, ...]) -> bool | None:
        value = b"".join(part.ljust((len(part) + 3) & ~3, b"\0") for part in key[:-1]) + key[-1]
        if len(key) > 1:  # the parts of a concatenated key are padded, the last one too
            value = value.ljust((len(value) + 3) & ~3, b"\0")
        element = netlink.nested(wire.ELEMENT_KEY, netlink.attribute(wire.DATA_VALUE, value))
        payload = netlink.nfgenmsg(wire.NUMBERS[family])
        payload += netlink.text(wire.ELEMENTS_TABLE, table) + netlink.text(wire.ELEMENTS_SET, name)
        payload += netlink.nested(wire.ELEMENTS_LIST, netlink.nested(1, element))
        kind = wire.SUBSYSTEM << 8 | wire.GETSETELEM
        try:
            replies = self._netfilter().request(kind, 0, payload, operation="look up", subject=f"set {name}")
        except NotFound:
            return False
        except HitlessError:
            return None
        for reply in replies:
            listed = netlink.attributes(reply.payload, 4).get(wire.ELEMENTS_LIST, b"")
            for _, raw in netlink.attribute_list(listed):
                attributes = netlink.attributes(raw)
                if wire.number(attributes.get(wire.ELEMENT_FLAGS, b"")) & wire.ELEMENT_INTERVAL_END:
                    return False  # the end of the interval before
                return None if is_limited(attributes) else True
        return False

    def _netfilter(self) -> netlink.Socket:
        if self._socket is None:
            self._socket = netlink.Socket(netlink.NETFILTER, self._namespace)
        return self._socket

    # --- interfaces

    def index(self, interface: str) -> int | None:
        """The number of an interface."""
        link = self._links().get(interface)
        return None if link is None else link[0]

    def group(self, interface: str) -> int | None:
        """The group that an interface is in."""
        link = self._links().get(interface)
        return None if link is None else link[1]

    def kind(self, interface: str) -> str | None:
        """What kind of link an interface is; empty for hardware."""
        link = self._links().get(interface)
        return None if link is None else link[2]

    def _links(self) -> dict[str, tuple[int, int, str]]:
        return self._remembered(("links",), self._read_links)

    def _read_links(self) -> dict[str, tuple[int, int, str]]:
        try:
            with RtnetlinkReader(self._namespace) as reader:
                return {one.name: (one.index, one.group, one.kind) for one in reader.devices()}
        except HitlessError:
            return {}

    def address(self, interface: str, family: Family) -> Address | None:
        """The address that a masquerade gives to what leaves by an interface; ``None``: there are several, or none."""
        return self._remembered(("address", interface, family), lambda: self._read_address(interface, family))

    def _read_address(self, interface: str, family: Family) -> Address | None:
        index = self.index(interface)
        if index is None:
            return None
        try:
            with RtnetlinkReader(self._namespace) as reader:
                addresses = reader.addresses({index: interface}, family)
        except HitlessError:
            return None
        found = [
            one.address
            for one in addresses
            if one.device == interface and one.scope == formats.RT_SCOPE_UNIVERSE and not one.secondary
        ]
        return found[0] if len(found) == 1 else None

    # --- the rest

    def ipsec(self) -> bool | None:
        """Whether the node has any IPsec policy."""
        return self._remembered(("ipsec",), self._read_ipsec)

    def _read_ipsec(self) -> bool | None:
        try:
            with netlink.Socket(_XFRM, self._namespace) as xfrm:
                return bool(xfrm.dump(_GETPOLICY, bytes(_POLICY_ID), operation="list", subject="IPsec policies"))
        except HitlessError:
            return None

    def quota(self, account: str) -> bool | None:
        """Whether an accounting object has a limit."""
        return self._remembered(("quota", account), lambda: self._read_quota(account))

    def _read_quota(self, account: str) -> bool | None:
        payload = netlink.nfgenmsg(0) + netlink.text(_ACCOUNT_NAME, account)
        try:
            with netlink.Socket(netlink.NETFILTER, self._namespace) as socket:
                kind = _ACCOUNTING << 8 | _ACCOUNT_GET
                replies = socket.request(kind, 0, payload, operation="read", subject=f"nfacct {account}")
        except HitlessError:
            return None
        return any(_ACCOUNT_FLAGS in netlink.attributes(reply.payload, 4) for reply in replies) if replies else None

    def recent(self, name: str, address: str) -> bool | None:
        """Whether the list ``name`` of xt_recent holds the address."""
        return self._remembered(("recent", name, address), lambda: self._read_recent(name, address))

    def _read_recent(self, name: str, address: str) -> bool | None:
        if "/" in name or name in (".", ".."):
            return None
        try:
            text = inside(self._namespace, Path(f"/proc/thread-self/net/xt_recent/{name}").read_text)
        except (OSError, HitlessError):
            return None
        return any(line.startswith(f"src={address} ") for line in text.splitlines())
