"""flannel's rules as arguments of iptables, and as input of nft, as flannel passes them.

Facts: upstream's pkg/trafficmngr, v0.25 to v0.28 (they do not differ here). The two defects of its nftables mode are
kept: the mark is compared whole instead of masked, and the fourth rule shadows the last.
"""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model.families import Family, Network

__all__ = ["FORWARD_CHAIN", "MASQ_CHAIN", "Pods", "Spec", "forward", "masquerade", "nft_forward", "nft_masquerade"]

MASQ_CHAIN = "FLANNEL-POSTRTG"
FORWARD_CHAIN = "FLANNEL-FWD"


@dataclass(frozen=True, slots=True)
class Pods:
    """flannel's configuration of one family: the cluster's pod network and the node's subnet, as it writes them."""

    family: Family
    network: str
    subnet: str

    @classmethod
    def of(cls, family: Family, network: Network, subnet: Network) -> Pods:
        """From parsed networks."""
        return cls(family, str(network), str(subnet))

    @classmethod
    def nothing(cls, family: Family) -> Pods:
        """flannel's empty value: its previous networks when there is no subnet file."""
        every = "0.0.0.0/0" if family is Family.IPV4 else "::/0"
        return cls(family, every, every)


@dataclass(frozen=True, slots=True)
class Spec:
    """One rule: its table, its chain, and its arguments."""

    table: str
    chain: str
    arguments: tuple[str, ...]

    def line(self, action: str) -> str:
        """The rule as a line of iptables-restore, which is also how iptables-save writes it (``action`` "-A")."""
        return " ".join([action, self.chain, *(f'"{text}"' if " " in text else text for text in self.arguments)])

    @property
    def own_chain(self) -> str:
        """The flannel chain that must exist for this rule: the one that contains it, or that it jumps to."""
        return FORWARD_CHAIN if FORWARD_CHAIN in (self.chain, self.arguments[-1]) else MASQ_CHAIN


def masquerade(pods: Pods, *, random_fully: bool = True) -> tuple[Spec, ...]:
    """The seven rules of the nat table, the jump first."""
    network, subnet = pods.network, pods.subnet
    comment = ("-m", "comment", "--comment", "flanneld masq")
    translate = ("-j", "MASQUERADE", *(["--random-fully"] if random_fully else []))

    def rule(*arguments: str) -> Spec:
        return Spec("nat", MASQ_CHAIN, arguments)

    return (
        Spec("nat", "POSTROUTING", (*comment, "-j", MASQ_CHAIN)),
        rule("-m", "mark", "--mark", "0x4000/0x4000", *comment, "-j", "RETURN"),
        rule("-s", subnet, "-d", network, *comment, "-j", "RETURN"),
        rule("-s", network, "-d", subnet, *comment, "-j", "RETURN"),
        rule("!", "-s", network, "-d", subnet, *comment, "-j", "RETURN"),
        rule("-s", network, "!", "-d", str(pods.family.multicast), *comment, *translate),
        rule("!", "-s", network, "-d", network, *comment, *translate),
    )


def forward(pods: Pods) -> tuple[Spec, ...]:
    """The three rules of the filter table, the jump first."""
    comment = ("-m", "comment", "--comment", "flanneld forward")
    return (
        Spec("filter", "FORWARD", (*comment, "-j", FORWARD_CHAIN)),
        Spec("filter", FORWARD_CHAIN, ("-s", pods.network, *comment, "-j", "ACCEPT")),
        Spec("filter", FORWARD_CHAIN, ("-d", pods.network, *comment, "-j", "ACCEPT")),
    )


def nft_masquerade(pods: Pods, *, random_fully: bool = True) -> tuple[str, ...]:
    """The rules of chain ``postrtg`` in nftables mode."""
    ip, network, subnet = pods.family.nft, pods.network, pods.subnet
    translate = "masquerade fully-random" if random_fully else "masquerade"
    return (
        "meta mark 0x4000 return",
        f"{ip} saddr {subnet} {ip} daddr {network} return",
        f"{ip} saddr {network} {ip} daddr {subnet} return",
        f"{ip} saddr != {subnet} {ip} daddr {network} return",
        f"{ip} saddr {network} {ip} daddr != {pods.family.multicast} {translate}",
        f"{ip} saddr != {network} {ip} daddr {network} {translate}",
    )


def nft_forward(pods: Pods) -> tuple[str, ...]:
    """The rules of chain ``forward`` in nftables mode."""
    ip = pods.family.nft
    return (f"{ip} saddr {pods.network} accept", f"{ip} daddr {pods.network} accept")
