"""Facts in: flags, environment, net-conf.json, the node's subnet. Everything ends in one ``SourceSnapshot``."""

from hitless.sources.flags import Options, parse_flags
from hitless.sources.netconf import NetConf, parse_netconf, read_netconf
from hitless.sources.snapshot import FamilyNetworks, SourceSnapshot, snapshot_from

__all__ = [
    "FamilyNetworks",
    "NetConf",
    "Options",
    "SourceSnapshot",
    "parse_flags",
    "parse_netconf",
    "read_netconf",
    "snapshot_from",
]
