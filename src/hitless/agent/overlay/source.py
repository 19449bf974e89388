"""Which source of leases the flags name."""

from __future__ import annotations

from pathlib import Path

from hitless.errors import InputError
from hitless.sources.cuts import cut
from hitless.sources.leasing import LeaseSource
from hitless.sources.netconf import NetConf
from hitless.sources.options import Options
from hitless.sources.subnets import read_subnet_file

__all__ = ["lease_source"]


def lease_source(options: Options, netconf: NetConf) -> LeaseSource | None:
    """``None``: there is none, and the agent keeps the rules alone. Raises ``InputError``."""
    if not options.overlay or not options.lease_dir:
        return None
    if not options.node_name:
        raise InputError("is needed with --lease-dir", where="--node-name", expected="this node's name")
    from hitless.sources.shared import SharedDirectory, SharedOptions

    cuts = {
        family: cut(network, netconf.cuttings[family], where=netconf.where)
        for family, network in netconf.networks.items()
    }
    try:
        known = read_subnet_file(Path(options.subnet_file))
    except InputError:
        known = None
    previous = known.subnets if known is not None else ()
    return SharedDirectory(
        SharedOptions(Path(options.lease_dir), options.node_name, cuts, options.node_subnets, previous)
    )
