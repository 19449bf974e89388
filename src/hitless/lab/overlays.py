"""What an overlay needs in a lab: flannel's network configuration, and where agents publish their leases.

Problem: agents of different makers work in one cluster, so each needs the same networks and the same leases. Promise:
``net_conf`` is the configuration of the whole lab; node i's lease is always for the subnet of its pods. Leases are in a
directory that all nodes share, or in an etcd that this lab starts (``hitless.lab.etcd``). A kernel without the
overlay's device is reported before any agent runs. Next stages: ``placeholders`` writes it into agents' command lines,
``agents`` passes it to ours.
"""

from __future__ import annotations

import json

from hitless.errors import MissingError, ProgramError
from hitless.kernel import processes
from hitless.lab import etcd
from hitless.lab.keeper_client import Keeper
from hitless.lab.members import LabMembers
from hitless.lab.plans import LabPlan, LeaseStore, OverlayType
from hitless.model.families import Family

__all__ = ["DEVICES", "LEASE_DIRECTORY", "SHARED", "net_conf", "prepare"]

SHARED = "/run/hitless-shared"
"""A folder that all nodes of a lab with an overlay have in common."""

LEASE_DIRECTORY = f"{SHARED}/leases"

DEVICES = {
    OverlayType.VXLAN: ("link add ov0 type vxlan id 1 dstport 8472", "vxlan", "CONFIG_VXLAN"),
    OverlayType.WIREGUARD: ("link add ov0 type wireguard", "wireguard", "CONFIG_WIREGUARD"),
}
"""For each overlay with a device: a command that creates it, its kernel module, and the kernel's option."""


def net_conf(plan: LabPlan) -> str:
    """flannel's net-conf.json for the lab; without an overlay in the plan vxlan, as in Canal."""
    conf: dict[str, object] = {}
    for family, stem, length in ((Family.IPV4, "", 24), (Family.IPV6, "IPv6", 64)):
        conf[f"Enable{'IPv4' if family is Family.IPV4 else 'IPv6'}"] = family in plan.families
        if family in plan.families:
            conf[f"{stem}Network"] = str(plan.network(family))
            conf[f"{stem}SubnetLen"] = length
            # by default flannel starts at the second subnet; the lab's node0 has the first
            conf[f"{stem}SubnetMin"] = str(plan.network(family).network_address)
    return json.dumps({**conf, "Backend": {"Type": str(plan.overlay or OverlayType.VXLAN)}})


def prepare(members: LabMembers, keeper: Keeper) -> None:
    """Make sure that this kernel has the overlay's device, and start what its leases need."""
    plan = members.plan
    place = members.held["underlay"].namespace(keeper.keep)
    attempt = DEVICES.get(OverlayType(plan.overlay))
    if attempt is not None:
        command, module, option = attempt
        try:
            processes.run(["ip", "-batch", "-"], namespace=place, stdin=f"{command}\nlink del ov0\n")
        except ProgramError as error:
            raise MissingError(
                f"this kernel has no {module} devices",
                remedy=f"load the module (modprobe {module}), use a kernel with {option}, or another --overlay",
            ) from error
    if plan.leases == LeaseStore.ETCD:
        etcd.start(members, keeper, net_conf(plan))
