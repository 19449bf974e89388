"""What nodes say of themselves to their peers: which pods are behind which address.

Problem: flannel's annotations and etcd values come in two dialects and one string of JSON for each backend; what plans
links and routes must not know either. Promise: a ``Lease`` is one node's word, checked, with an ``Endpoint`` for each
family on its own, so that a change (or nonsense) in one family never drops the other's. ``Leases`` is everybody's, with
``synced``: nothing may be removed from a kernel on the word of a source that has not told everything yet. Leases are
made in ``hitless.sources`` and read by ``hitless.desired``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hitless.model.families import Address, Family, Network

__all__ = ["BackendType", "Endpoint", "Lease", "Leases"]


class BackendType(StrEnum):
    """Flannel's overlay backends that are served here, by flannel's names."""

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
    """One node's word: its backend, and an endpoint for each family that it serves."""

    node: str
    backend: BackendType
    endpoints: Mapping[Family, Endpoint]


@dataclass(frozen=True, slots=True)
class Leases:
    """Everybody's leases, this node's among them, by the source's name of the node.

    ``refused``: nodes (or keys) whose word is nonsense or collides with somebody's, each with the reason; they are left
    out, and the others are served. ``synced``: the source has told everything at least once.
    """

    by_node: Mapping[str, Lease] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    synced: bool = False
