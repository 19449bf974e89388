"""The input from which the desired state is computed.

Problem: a desired state that is patched by events drifts. Promise: a ``SourceSnapshot`` is always complete;
``snapshot_from`` checks the subnets against the networks before anything is planned. It does no I/O: the subnets are
passed in (``hitless.sources.subnets``). Next stage: ``hitless.desired``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hitless.errors import InputError
from hitless.model.families import Family, Network, family_of, within
from hitless.sources.netconf import NetConf

__all__ = ["FamilyNetworks", "SourceSnapshot", "snapshot_from"]


@dataclass(frozen=True, slots=True)
class FamilyNetworks:
    """``network``: all pods of the cluster; ``subnet``: this node's pods. ``draining``: networks of an earlier
    configuration in which pods of this node still live."""

    network: Network
    subnet: Network
    draining: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """Networks per family, and the switches."""

    networks: Mapping[Family, FamilyNetworks]
    masquerade: bool = False
    random_fully: bool = True
    forward: bool = True
    origin: str = field(default="", compare=False)


def snapshot_from(
    netconf: NetConf,
    subnets: Iterable[Network],
    *,
    masquerade: bool,
    random_fully: bool,
    forward: bool,
    origin: str,
) -> SourceSnapshot:
    """The snapshot of this node; ``origin`` says where the subnets come from, for messages.

    Raises ``InputError`` when a family that is enabled has no subnet, or one outside its network. A subnet of a
    family that is not enabled is ignored, as flannel does (dual-stack nodes, single-stack flannel).
    """
    found: dict[Family, Network] = {}
    for subnet in subnets:
        family = family_of(subnet)
        if family in found and found[family] != subnet:
            both = f"{found[family]} and {subnet}"
            raise InputError(f"two {family.value} subnets, {both}", where=origin, expected="one for each family")
        found[family] = subnet
    networks: dict[Family, FamilyNetworks] = {}
    for family, network in netconf.networks.items():
        if family not in found:
            raise InputError(
                f"no {family.value} subnet for this node, although {netconf.where} enables {family.value}",
                where=origin,
                expected=f"a subnet inside {network}",
            )
        mine = found[family]
        if not within(mine, network):
            raise InputError(f"the subnet {mine} is outside the network", where=origin, expected=f"it inside {network}")
        networks[family] = FamilyNetworks(network, mine)
    return SourceSnapshot(networks, masquerade, random_fully, forward, origin)
