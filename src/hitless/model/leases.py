"""Leases: which pods of which node are behind which address.

Problem: flannel's annotations and etcd values come in two formats, with one JSON string for each backend; the plan of
links and routes must not depend on either. Promise: a ``Lease`` is one node's validated data, with an ``Endpoint`` for
each family, so that a change (or invalid data) in one family never drops the other. ``Leases`` has those of all nodes,
with ``synced``: nothing may be removed from the kernel before a source has reported everything once. Leases are made in
``hitless.sources`` and read by ``hitless.desired``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hitless.model.families import Address, Family, Network

__all__ = ["BackendType", "Endpoint", "Lease", "Leases"]


class BackendType(StrEnum):
    """The supported overlay backends, by flannel's names."""

    VXLAN = "vxlan"
    HOST_GW = "host-gw"
    WIREGUARD = "wireguard"
    ALLOC = "alloc"  # subnets are given out, no traffic is carried


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How the pods of one family on one node are reached.

    ``public_ip`` is an address of the underlay, and may be of the other family (WireGuard with one device). ``mac``
    (lower case, with colons) and ``vni`` are VXLAN's; ``public_key`` (base64) and ``port`` WireGuard's.
    """

    subnet: Network
    public_ip: Address
    mac: str = ""
    vni: int = 0
    public_key: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """One node's data: its backend, and an endpoint for each family that it serves."""

    node: str
    backend: BackendType
    endpoints: Mapping[Family, Endpoint]


@dataclass(frozen=True, slots=True)
class Leases:
    """The leases of all nodes, this node's among them, by the source's name of the node.

    ``refused``: nodes (or keys) whose data are invalid or collide with others, each with the reason; they are left out,
    and the others are served. ``synced``: the source has reported everything at least once.
    """

    by_node: Mapping[str, Lease] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    synced: bool = False
