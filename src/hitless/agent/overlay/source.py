"""The source of leases that the flags name, and its last known state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model.families import Address, Family, Network, within
from hitless.model.reading import address_of
from hitless.sources.cuts import Cut, cut
from hitless.sources.lease_cache import CachedSource, CachedState, read_state
from hitless.sources.lease_source import LeaseSource
from hitless.sources.netconf import NetConf, parse_netconf, read_netconf
from hitless.sources.options import Options
from hitless.sources.subnets import read_subnet_file

__all__ = ["configuration_reader", "has_leases", "lease_source", "network_configuration", "remembered"]


def remembered(options: Options, warn: Callable[[str], None]) -> CachedState | None:
    """The content of the state file; ``warn`` is called where it is refused."""
    if not options.overlay or not options.state_file or not _kind(options):
        return None
    try:
        return read_state(Path(options.state_file))
    except InputError as error:
        warn(f"{error}; it is not used")
        return None


def network_configuration(
    options: Options, state: CachedState | None, warn: Callable[[str], None]
) -> tuple[NetConf, str]:
    """net-conf.json, and its text where it came from etcd. Raises ``InputError``; waits for etcd."""
    if _kind(options) != "etcd" or options.netconf_text:
        cuts = _kind(options) in ("etcd", "directory")
        return read_netconf(Path(options.netconf), options.netconf_text, cuts=cuts), ""
    from hitless.sources.etcd.config import config_text

    text = config_text(options.etcd, state.config if state is not None else "", warn)
    return parse_netconf(text, where=f"etcd: {options.etcd.prefix}/config", cuts=True), text


def lease_source(
    options: Options, netconf: NetConf, state: CachedState | None, warn: Callable[[str], None], config: str = "",
    *, keep: bool = True,
) -> LeaseSource | None:  # fmt: skip
    """``None``: there is no source, and the agent only manages the rules. ``keep``: write leases to the state file.
    Raises ``InputError``."""
    kind = _kind(options)
    if not options.overlay or not kind:
        return None
    source = {"directory": _directory, "etcd": _etcd, "kubernetes": _kubernetes}[kind](options, netconf)
    if not options.state_file:
        return source
    path = Path(options.state_file) if keep else None
    return CachedSource(source, path, _fitting(state, netconf), warn, config=config)


def configuration_reader(options: Options) -> Callable[[], str | None] | None:
    """A function that reads net-conf.json from where a start reads it; ``None`` where it is in the command line. It
    raises ``HitlessError``, ``OSError``."""
    if options.netconf_text:
        return None
    if _kind(options) != "etcd":
        return lambda: files.read_text(Path(options.netconf))

    def ask() -> str | None:
        from hitless.sources.etcd.client import Etcd
        from hitless.sources.etcd.registry import Registry

        with contextlib.closing(Etcd(options.etcd)) as etcd:
            return Registry(etcd, options.etcd.prefix).config()

    return ask


def has_leases(options: Options) -> bool:
    """Whether the flags ask for an overlay."""
    return options.overlay and bool(_kind(options))


def _kind(options: Options) -> str:
    if options.lease_dir:
        return "directory"
    if options.kubernetes:
        return "kubernetes"
    return "etcd" if options.etcd.endpoints else ""


def _fitting(state: CachedState | None, netconf: NetConf) -> CachedState | None:
    """The state, unless it belongs to other networks than the configured ones."""
    if state is None or state.subnets.keys() != netconf.networks.keys():
        return None
    inside = (within(one, netconf.networks[family]) for family, one in state.subnets.items())
    return state if all(inside) else None


def _directory(options: Options, netconf: NetConf) -> LeaseSource:
    from hitless.sources.lease_directory import LeaseDirectory, LeaseDirectoryOptions

    previous = _previous(options)
    node = options.node_name or os.uname().nodename
    return LeaseDirectory(
        LeaseDirectoryOptions(Path(options.lease_dir), node, _cuts(netconf), options.node_subnets, previous)
    )


def _etcd(options: Options, netconf: NetConf) -> LeaseSource:
    from hitless.sources.etcd.source import EtcdLeases, EtcdLeasesOptions

    public = tuple(options.outer.public.values())
    reserved = _addresses(map(_host, options.etcd.endpoints))
    return EtcdLeases(
        EtcdLeasesOptions(options.etcd, _cuts(netconf), options.node_subnets, _previous(options), reserved, public)
    )


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _addresses(hosts: Iterable[str]) -> frozenset[Address]:
    """Those that are addresses: no peer's subnet may cover the servers of the leases."""
    return frozenset(one for one in map(address_of, hosts) if one is not None)


def _kubernetes(options: Options, netconf: NetConf) -> LeaseSource:
    from hitless.sources.kubernetes import NodeSource
    from hitless.sources.nodes import NodeLeases, NodeLeasesOptions

    asked = NodeSource.from_options(options)
    servers = (options.environment.get("KUBERNETES_SERVICE_HOST", ""), _host(asked.client.server))
    return NodeLeases(
        NodeLeasesOptions(
            netconf.networks,
            asked.node,
            asked.pod,
            options.annotation_prefix,
            options.set_condition,
            _addresses(servers),
        ),
        asked.client,
    )


def _cuts(netconf: NetConf) -> Mapping[Family, Cut]:
    return {
        family: cut(network, netconf.cuttings[family], where=netconf.where)
        for family, network in netconf.networks.items()
    }


def _previous(options: Options) -> tuple[Network, ...]:
    try:
        known = read_subnet_file(Path(options.subnet_file))
    except InputError:
        known = None
    return known.subnets if known is not None else ()
