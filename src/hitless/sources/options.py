"""The agent's options as values: command line and environment, checked. ``flags`` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hitless.model.families import Address, Backend, Family, Network

__all__ = ["EtcdOptions", "Options", "OuterOptions"]


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """Where etcd is, and our credentials. ``margin``: seconds before a lease's end at which it is renewed."""

    endpoints: tuple[str, ...] = ()
    prefix: str = "/coreos.com/network"
    keyfile: str = ""
    certfile: str = ""
    cafile: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    margin: float = 3600.0


@dataclass(frozen=True, slots=True)
class OuterOptions:
    """How the interface to peers is chosen, and the addresses that are published to them."""

    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    can_reach: Address | None = None
    public: Mapping[Family, Address] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked. ``backend`` is ``None`` for auto. ``ignored`` names what was set and has no effect."""

    masquerade: bool = False
    random_fully: bool = True
    forward: bool = True
    resync: float = 5.0
    netconf: str = "/etc/kube-flannel/net-conf.json"
    netconf_text: str = ""
    subnet_file: str = "/run/flannel/subnet.env"
    kubernetes: bool = False
    kube_api_url: str = ""
    kubeconfig: str = ""
    node_name: str = ""
    node_subnets: tuple[Network, ...] = ()
    healthz_ip: str = "0.0.0.0"
    healthz_port: int = 0
    verbosity: int = 0
    backend: Backend | None = None
    lock_wait: int = 5
    heal: bool = True
    etcd: EtcdOptions = EtcdOptions()
    lease_dir: str = ""
    annotation_prefix: str = "flannel.alpha.coreos.com/"
    outer: OuterOptions = OuterOptions()
    blackhole: bool = False
    set_condition: bool = True
    state_file: str = ""
    overlay: bool = True
    version: bool = False
    help: bool = False
    ignored: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, compare=False)
