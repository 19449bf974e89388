"""What opens a gap and what does not, in every backend and both families, by the programs that people use."""

from __future__ import annotations

import time
from ipaddress import ip_network

import pytest
from tests.kernel.nftables.nodes import Node
from tests.kernel.watch.watched import Host, rules, watch_while

from hitless.kernel.nftables import Mirror
from hitless.model.events import LostEvents
from hitless.model.families import Backend, Family
from hitless.watch import loop
from hitless.watch.feeds import Feed

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize("family", list(Family))
IPTABLES = pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])

# what breaks egress, and what mends it again; {network} is the pod network
BREAKS = {
    "the chain is emptied": (["-t nat -F FLANNEL-POSTRTG"], "is empty"),
    "the jump is missing": (["-t nat -D POSTROUTING 1"], "POSTROUTING is empty"),
    "a RETURN stands in front": (["-t nat -I FLANNEL-POSTRTG -j RETURN"], "FLANNEL-POSTRTG rule 1 returns"),
    "an ACCEPT stands before the jump": (["-t nat -I POSTROUTING -j ACCEPT"], "POSTROUTING rule 1 accepts"),
    "the subnet is wrong": (["-t nat -R FLANNEL-POSTRTG 5 -s {other} -j MASQUERADE"], "FLANNEL-POSTRTG"),
    "the rules are in another order": (
        ["-t nat -A FLANNEL-POSTRTG -s {network} -j RETURN", "-t nat -D FLANNEL-POSTRTG 5"],
        "returns",
    ),
    "a DROP stands in the forward chain": (["-I FORWARD -s {network} -j DROP"], "FORWARD rule 1"),
    "a DROP stands in raw": (["-t raw -I PREROUTING -i cali+ -j DROP"], "PREROUTING rule 1 (ip"),
    "conntrack is told to look away": (
        ["-t raw -I PREROUTING -s {network} -j CT --notrack"],
        "hides it from conntrack",
    ),
    "a DROP stands in mangle's prerouting": (["-t mangle -I PREROUTING -s {network} -j DROP"], "PREROUTING rule 1 (ip"),
    "a DROP stands in mangle's forward": (["-t mangle -I FORWARD -o eth0 -j DROP"], "FORWARD rule 1 (ip"),
    "a DROP stands in mangle's postrouting": (["-t mangle -I POSTROUTING -o eth0 -j DROP"], "POSTROUTING rule 1 (ip"),
    "a mark of mangle turns the packet back": (
        ["-t mangle -I PREROUTING -i cali1 -j MARK --set-mark 0x4000"],
        "FLANNEL-POSTRTG rule 1 returns",
    ),
    "it gets the address of another pod": (
        ["-t nat -I POSTROUTING -j SNAT --to-source {pod}"],
        "an address of the pods",
    ),
    "the forward policy is DROP and the accept is gone": (["-P FORWARD DROP", "-F FLANNEL-FWD"], "policy of FORWARD"),
}

HARMLESS = {
    "a rule for others in front": "-t nat -I FLANNEL-POSTRTG -s {other} -j RETURN",
    "another port's DROP": "-I FORWARD -p tcp --dport 25 -j DROP",
    "a counter": "-t nat -I POSTROUTING",
    "a mark that nobody asks for": "-I FORWARD -j MARK --set-xmark 0x8/0x8",
    "a chain that nobody calls": "-t nat -N LONELY",
    "an input rule": "-A INPUT -j DROP",
    "a raw rule for others": "-t raw -A PREROUTING -s {other} -j DROP",
    "a reverse path filter": "-t raw -A PREROUTING -i cali+ -m rpfilter --validmark --invert -j DROP",
    "a Service": "-t nat -A PREROUTING -d {other} -p tcp --dport 80 -j DNAT --to-destination {pod}",
    "a port of the node": "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DNAT --to-destination {pod}",
    "the same masquerade again": "-t nat -A FLANNEL-POSTRTG -s {network} -j MASQUERADE",
    "a policy that a rule makes up for": "-P FORWARD DROP",
}


def filled(line: str, host: Host) -> str:
    other = "10.99.0.0/16" if host.family is Family.IPV4 else "fd99::/48"
    pod = "10.42.7.7" if host.family is Family.IPV4 else "fd42::7"
    return line.format(network=host.network, other=other, pod=pod)


@BOTH
@IPTABLES
@pytest.mark.parametrize("name", BREAKS)
def test_what_cuts_pods_off_opens_a_gap_that_is_closed_when_all_is_right_again(
    node: Node, family: Family, backend: Backend, name: str
) -> None:
    host = Host(node, family, backend)
    host.fill()
    lines, reason = BREAKS[name]

    def mend() -> None:
        host.restore(
            "*raw\n-F PREROUTING\nCOMMIT\n*mangle\n-F PREROUTING\n-F FORWARD\n-F POSTROUTING\nCOMMIT\n"
            "*nat\n-F POSTROUTING\n-F FLANNEL-POSTRTG\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\n-F FORWARD\n"
            "-F FLANNEL-FWD\nCOMMIT\n"
        )
        host.fill()

    seen = watch_while(host.options(), *(lambda line=line: host.iptables(filled(line, host)) for line in lines))
    assert seen.states == ["carried", "not_carried"]
    [gap] = seen.gaps
    assert gap.open and gap.network == host.network
    assert reason in gap.reason
    after = watch_while(host.options(networks=(ip_network(host.network),)), mend)
    assert after.states[0] == "not_carried"
    assert after.states[-1] == "carried"
    assert not after.gaps[-1].open


@BOTH
@IPTABLES
@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_opens_no_gap(node: Node, family: Family, backend: Backend, name: str) -> None:
    host = Host(node, family, backend)
    host.fill()
    seen = watch_while(host.options(), lambda: host.iptables(filled(HARMLESS[name], host)))
    assert seen.states == ["carried"]
    assert seen.gaps == []


NATIVE_BREAKS = {
    "the chain is emptied": "flush chain {ip} {table} postrtg",
    "the table is gone": "delete table {ip} {table}",
    "the table sleeps": "add table {ip} {table} {{ flags dormant; }}",
    "a return stands in front": "insert rule {ip} {table} postrtg return",
    "another table drops": "table {ip} other {{ chain f {{ type filter hook forward priority 5; policy drop; }}; }}",
    "a prerouting chain drops": "table inet o {{ chain f {{ type filter hook prerouting priority -310; drop; }}; }}",
    "prerouting hides it": "table {ip} o {{ chain f {{ type filter hook prerouting priority -300; notrack; }}; }}",
    "a nat prerouting chain drops": "table {ip} o {{ chain f {{ type nat hook prerouting priority dstnat; drop; }}; }}",
    "an inet table drops": "table inet other {{ chain f {{ type filter hook forward priority -5; drop; }}; }}",
}
NATIVE_HARMLESS = {
    "a return for others": "insert rule {ip} {table} postrtg {ip} saddr {other} return",
    "a set that nobody asks": "add set {ip} {table} s {{ type inet_service; }}",
    "a drop at input": "table inet other {{ chain i {{ type filter hook input priority 0; drop; }}; }}",
    "a reverse path filter": "table inet o {{ chain p {{ type filter hook prerouting priority filter; "
    "meta nfproto ipv6 fib saddr . iif oif missing drop; fib saddr . mark . iif oif 0 drop; }}; }}",
    "a port of the node": "table {ip} o {{ chain p {{ type nat hook prerouting priority dstnat; "
    "fib daddr type local redirect; }}; }}",
    "a standby": "table {ip} spare {{ chain p {{ type nat hook postrouting priority 105; masquerade; }}; }}",
}


def native(line: str, family: Family) -> str:
    other = "10.99.0.0/16" if family is Family.IPV4 else "fd99::/48"
    return line.format(ip=family.nft, table=f"flannel-{family.value}", other=other)


@BOTH
@pytest.mark.parametrize("name", NATIVE_BREAKS)
def test_what_cuts_pods_off_opens_a_gap_in_native_tables(node: Node, family: Family, name: str) -> None:
    host = Host(node, family, Backend.NFTABLES)
    host.fill()
    seen = watch_while(host.options(), lambda: host.restore(native(NATIVE_BREAKS[name], family)))
    assert seen.states == ["carried", "not_carried"]
    assert [(gap.network, gap.open) for gap in seen.gaps] == [(host.network, True)]


@BOTH
@pytest.mark.parametrize("name", NATIVE_HARMLESS)
def test_a_harmless_change_opens_no_gap_in_native_tables(node: Node, family: Family, name: str) -> None:
    host = Host(node, family, Backend.NFTABLES)
    host.fill()
    seen = watch_while(host.options(), lambda: host.restore(native(NATIVE_HARMLESS[name], family)))
    assert seen.states == ["carried"]


def test_a_flush_of_everything_is_a_gap_in_native_tables(node: Node) -> None:
    host = Host(node, Family.IPV4, Backend.NFTABLES)
    host.fill()
    seen = watch_while(host.options(), lambda: node.nft("flush ruleset"), host.fill)
    assert seen.states == ["carried", "not_carried", "carried"]
    assert [gap.open for gap in seen.gaps] == [False]


def test_rules_that_nobody_understands_are_cannot_tell_and_never_fine(node: Node) -> None:
    host = Host(node, Family.IPV4, Backend.NFT)
    host.fill()
    line = "-I FORWARD -m statistic --mode random --probability 0.5 -j DROP"
    seen = watch_while(host.options(), lambda: host.iptables(line))
    assert seen.states == ["carried", "cannot_tell"]
    assert seen.gaps == []


def test_the_answers_of_both_families_are_kept_apart(node: Node) -> None:
    v4, v6 = Host(node, Family.IPV4, Backend.NFT), Host(node, Family.IPV6, Backend.NFT)
    v4.fill()
    v6.fill()
    options = v4.options(families=(Family.IPV4, Family.IPV6))
    seen = watch_while(options, lambda: v6.iptables("-t nat -F FLANNEL-POSTRTG"), states=2)
    assert seen.states == ["carried", "carried", "not_carried"]
    assert [(gap.family, gap.network) for gap in seen.gaps] == [("ipv6", v6.network)]


def test_the_rules_of_kube_proxy_in_its_nftables_mode_are_understood(node: Node) -> None:
    host = Host(node, Family.IPV4, Backend.NFT)
    host.fill()
    assert node.nft(KUBE_PROXY)
    options = host.options(backends=frozenset({Backend.NFT, Backend.NFTABLES}))
    seen = watch_while(
        options,
        lambda: node.nft("add element ip kube-proxy no-endpoint-services { 10.43.0.9 . tcp . 80 : goto reject-chain }"),
        lambda: node.nft("add element ip kube-proxy firewall-ips { 198.51.100.77 . tcp . 443 : goto reject-chain }"),
    )
    assert seen.states == ["carried", "not_carried"]
    assert "reject-chain" in seen.gaps[0].reason


@BOTH
@pytest.mark.parametrize("backend", list(Backend))
def test_what_was_done_before_the_end_is_told_however_late_the_watch_is_run(
    node: Node, family: Family, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the last look came after all the time that it had, and what it saw was not told."""
    host = Host(node, family, backend)
    host.fill()
    whole = Feed.finish

    def late(self: Feed) -> None:
        time.sleep(0.6)
        whole(self)

    monkeypatch.setattr(Feed, "finish", late)
    monkeypatch.setattr(loop, "_LAST_S", 0.5)
    seen = watch_while(host.options(), lambda: host.restore(EMPTIED[backend].format(ip=family.nft, family=family)))
    assert seen.states == ["carried", "not_carried"]
    assert not seen.of(LostEvents)


EMPTIED = dict.fromkeys((Backend.NFT, Backend.LEGACY), "*nat\n-F FLANNEL-POSTRTG\nCOMMIT\n") | {
    Backend.NFTABLES: "flush chain {ip} flannel-{family} postrtg"
}


def test_commits_that_did_not_come_in_time_are_said_to_be_lost(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(node, Family.IPV4, Backend.NFT)
    host.fill()
    monkeypatch.setattr(Mirror, "committed", property(lambda mirror: mirror.generation + 3))
    monkeypatch.setattr(loop, "_LAST_S", 0.05)
    seen = watch_while(host.options())
    [lost] = seen.of(LostEvents)
    assert "did not come" in str(lost)


KUBE_PROXY = """
table ip kube-proxy {
  set cluster-ips { type ipv4_addr; elements = { 10.43.0.1 } }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  chain reject-chain { reject; }
  chain cluster-ips-check { ip daddr @cluster-ips reject; ip daddr 10.43.0.0/16 drop; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain filter-forward {
    type filter hook forward priority -110; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump firewall-check
    ct state new jump cluster-ips-check
  }
  chain masquerading { meta mark & 0x4000 == 0 return; meta mark set mark xor 0x4000; masquerade fully-random; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
}
"""


def test_every_text_of_the_rules_is_used() -> None:
    """The rules of the tests are those of the fact sheet: seven in FLANNEL-POSTRTG's table, counted with the jump."""
    assert rules(Backend.NFT, Family.IPV4).count("-A FLANNEL-POSTRTG") == 6
