"""Every flag that the agent knows: flanneld's (its main.go and Documentation/configuration.md), and ours.

Values only; ``flags`` parses the command line with them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLAGS", "Flag"]


@dataclass(frozen=True, slots=True)
class Flag:
    """``kind``: switch, text, number (within ``bounds``), list (may be repeated). ``acts``: the flag has an effect in
    this version."""

    name: str
    kind: str
    default: str
    help: str
    acts: bool = True
    ours: bool = False
    bounds: tuple[int, int] = (0, 0)


FLAGS: tuple[Flag, ...] = (
    Flag("ip-masq", "switch", "false", "keep the masquerade rules for pod traffic that leaves the cluster's network"),
    Flag("ip-masq-fully-random-disable", "switch", "false", "masquerade without --random-fully"),
    Flag("iptables-forward-rules", "switch", "true", "keep the rules that accept forwarding from and to pods"),
    Flag(
        "iptables-resync",
        "number",
        "5",
        "seconds between full comparisons; events come before that",
        bounds=(1, 86_400),
    ),
    Flag("net-config-path", "text", "/etc/kube-flannel/net-conf.json", "flannel's network configuration"),
    Flag("subnet-file", "text", "/run/flannel/subnet.env", "where the node's subnet is kept between starts"),
    Flag("kube-subnet-mgr", "switch", "false", "take the node's subnet from the Kubernetes API"),
    Flag("kube-api-url", "text", "", "the API server, where it is not the in-cluster one"),
    Flag("kubeconfig-file", "text", "", "credentials for the API server (JSON, or YAML where PyYAML is installed)"),
    Flag("healthz-ip", "text", "0.0.0.0", "address for /healthz, /readyz and /metrics"),
    Flag("healthz-port", "number", "0", "port for /healthz, /readyz and /metrics; 0 is none", bounds=(0, 65_535)),
    Flag("v", "number", "0", "log more: 1 and higher shows every decision to change nothing", bounds=(0, 100)),
    Flag("version", "switch", "false", "print the version and exit"),
    Flag("help", "switch", "false", "print this text and exit"),
    Flag("etcd-endpoints", "list", "", "take leases from etcd (v3) at one of these URLs"),
    Flag("etcd-prefix", "text", "/coreos.com/network", "where flannel's keys are in etcd"),
    Flag("etcd-keyfile", "text", "", "the client certificate's key for etcd"),
    Flag("etcd-certfile", "text", "", "a client certificate for etcd"),
    Flag("etcd-cafile", "text", "", "the authority that signed etcd's certificate"),
    Flag("etcd-username", "text", "", "a user of etcd"),
    Flag(
        "etcd-password",
        "text",
        "",
        "its password (better FLANNELD_ETCD_PASSWORD: arguments are visible to every user)",
    ),
    Flag("kube-annotation-prefix", "text", "flannel.alpha.coreos.com", "the annotations' prefix"),
    Flag(
        "iface",
        "list",
        "",
        "the interface, by name or address, that peers are reached by; the first that is there",
    ),
    Flag("iface-regex", "list", "", "an expression for its address or name, where --iface finds none"),
    Flag(
        "iface-can-reach",
        "text",
        "",
        "the interface by which this address is reached, where neither finds one",
    ),
    Flag("public-ip", "text", "", "the address by which peers reach this node"),
    Flag("public-ipv6", "text", "", "its IPv6 address"),
    Flag(
        "subnet-lease-renew-margin",
        "number",
        "60",
        "minutes before its end at which the lease in etcd is renewed",
        bounds=(1, 1439),
    ),
    Flag(
        "ip-blackhole-route",
        "switch",
        "false",
        "a blackhole route for the node's subnet (for Canal, which has no bridge with that subnet)",
    ),
    Flag(
        "set-node-network-unavailable",
        "switch",
        "true",
        "set the node's condition NetworkUnavailable to False",
    ),
    Flag("persistent-mac", "switch", "false", "flannel 0.26 and later keep the MAC anyway", acts=False),
    Flag("use-multi-cluster-cidr", "switch", "false", "flannel 0.21 to 0.24: no meaning here", acts=False),
    Flag("vmodule", "text", "", "flannel's log library: no meaning here", acts=False),
    Flag("log_backtrace_at", "text", "", "flannel's log library: no meaning here", acts=False),
    Flag("backend", "text", "auto", "nft, legacy, nftables, or auto: as the kubelet and kube-proxy do", ours=True),
    Flag("net-config", "text", "", "flannel's network configuration itself, instead of a file", ours=True),
    Flag("node-subnet", "list", "", "this node's subnet, one for each family, instead of asking a source", ours=True),
    Flag(
        "node-name",
        "text",
        "",
        "this node's name in Kubernetes (default: NODE_NAME, else the node of POD_NAME)",
        ours=True,
    ),
    Flag(
        "lock-wait",
        "number",
        "5",
        "seconds to wait for the xtables lock before trying again later",
        ours=True,
        bounds=(1, 600),
    ),
    Flag(
        "lease-dir",
        "text",
        "",
        "take leases from files in this directory, instead of Kubernetes or etcd",
        ours=True,
    ),
    Flag(
        "state-file",
        "text",
        "/run/flannel/hitless-leases.json",
        "where the last leases are kept, for a start without the API or etcd; empty: nowhere",
        ours=True,
    ),
    Flag("overlay", "switch", "true", "keep devices, routes and peers too; false: the rules alone", ours=True),
    Flag("heal", "switch", "true", "after a gap, delete conntrack entries bound un-translated", ours=True),
)
"""flanneld's flags (its main.go and Documentation/configuration.md) and ours."""
