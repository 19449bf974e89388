"""Other agents' masquerade rules by profile, as these agents write them: bridged exactly, or refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.kernel.guard.guarded import HANG, World, nft, tables, until, world
from tests.kernel.guard.test_guard_limits import translated
from tests.kernel.guard.test_pools import quick_guard, state
from tests.kernel.nftables.nodes import programs

from hitless.model.families import Backend, Family
from hitless.observe import live

pytestmark = pytest.mark.kernel
V4 = Family.IPV4

IP_MASQ_AGENT = """*nat
:{chain} - [0:0]
-A POSTROUTING -m comment --comment "masq agent: non-LOCAL traffic" -m addrtype ! --dst-type LOCAL -j {chain}
-A {chain} -d 169.254.0.0/16 -m comment --comment "local traffic is not subject to MASQUERADE" -j RETURN
-A {chain} -d 10.0.0.0/8 -m comment --comment "local traffic is not subject to MASQUERADE" -j RETURN
-A {chain} -d {exempt} -m comment --comment "local traffic is not subject to MASQUERADE" -j RETURN
-A {chain} -m comment --comment "outbound traffic is subject to MASQUERADE" -m addrtype ! --dst-type LOCAL -j MASQUERADE
COMMIT
"""
CILIUM = """*nat
:CILIUM_POST_nat - [0:0]
-A POSTROUTING -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat
-A CILIUM_POST_nat -s 10.42.0.0/16 -d {exempt} -j ACCEPT
-A CILIUM_POST_nat -s 10.42.0.0/16 ! -d 10.42.0.0/16 ! -o cilium_+ -m comment --comment "non-cluster" -j MASQUERADE
-A CILIUM_POST_nat -m mark --mark 0xa00/0xe00 -m comment --comment "exclude proxy return traffic" -j ACCEPT
-A CILIUM_POST_nat -s 127.0.0.1/32 -o cilium_host -m comment --comment "host->cluster" -j SNAT --to-source 10.42.1.1
COMMIT
"""
CALICO_NFT = """table ip calico {{
  set cali40masq-ipam-pools {{ type ipv4_addr; flags interval; elements = {{ 10.42.0.0/16 }}; }}
  set cali40all-ipam-pools {{ type ipv4_addr; flags interval; elements = {{ 10.42.0.0/16, {exempt} }}; }}
  chain nat-cali-nat-outgoing {{
    ip saddr @cali40masq-ipam-pools ip daddr != @cali40all-ipam-pools counter masquerade fully-random
  }}
  chain nat-cali-POSTROUTING {{ counter jump nat-cali-nat-outgoing; }}
  chain nat-POSTROUTING {{
    type nat hook postrouting priority 110; policy accept;
    counter jump nat-cali-POSTROUTING
  }}
}}
"""


@dataclass(frozen=True)
class Case:
    profile: str
    rules: str
    damage: tuple[str, ...]
    flags: tuple[str, ...] = ()
    backend: Backend = Backend.NFT


def iptables(name: str, chain: str, rules: str, backend: Backend, *flags: str) -> Case:
    return Case(name, rules, (f"iptables-{backend}", "-t", "nat", "-F", chain), flags, backend)


PODS = ("--network", "10.42.0.0/16")
CASES = {
    "ip-masq-agent": iptables(
        "ip-masq-agent", "IP-MASQ", IP_MASQ_AGENT.replace("{chain}", "IP-MASQ"), Backend.NFT, *PODS
    ),
    "ip-masq-agent, legacy": iptables(
        "ip-masq-agent", "IP-MASQ-AGENT", IP_MASQ_AGENT.replace("{chain}", "IP-MASQ-AGENT"), Backend.LEGACY, *PODS
    ),
    "kindnet": iptables(
        "kindnet", "KIND-MASQ-AGENT", IP_MASQ_AGENT.replace("{chain}", "KIND-MASQ-AGENT"), Backend.NFT, *PODS
    ),
    "cilium": iptables("cilium", "CILIUM_POST_nat", CILIUM, Backend.NFT),
    "calico, nftables": Case("calico", CALICO_NFT, ("nft", "flush", "chain", "ip", "calico", "nat-cali-nat-outgoing")),
}


def write(made: World, case: Case, exempt: str) -> None:
    text = case.rules.replace("{{", "{").replace("}}", "}").replace("{exempt}", exempt)
    if case.damage[0] == "nft":
        nft(made, text)
        return
    (made.folder / "rules").write_text(text)
    made.on_node(f"iptables-{case.backend}-restore", "--noflush", str(made.folder / "rules"))


def source(made: World, address: str) -> str:
    """The address under which a new flow of the pod arrives at one of the far end's addresses."""
    with made.far_udp_at(address) as receiver, made.udp(connect=False) as sender:
        sender.sendto(b"x", (address, 9))
        return str(receiver.recvfrom(64)[1][0])


@pytest.mark.parametrize("name", list(CASES))
def test_the_profile_bridges_what_the_rules_translate_and_nothing_that_they_exempt(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    with world(tmp_path, backend=case.backend) as made:
        outside, exempt = (str(address) for address in made.cluster.far_end.addresses[V4][:2])
        write(made, case, f"{exempt}/32")
        made.guard("--profile", case.profile, *case.flags, "--family", "ipv4")
        made.until_state("standing by")
        assert (source(made, outside), source(made, exempt)) == (str(made.node.address), str(made.pod.address))
        assert made.counters()["carried"].packets == 0
        made.on_node(*case.damage)
        made.until_state("carrying")
        assert (source(made, outside), source(made, exempt)) == (str(made.node.address), str(made.pod.address))
        assert made.counters()["carried"].packets == 1


def test_a_profile_file_does_the_same_for_an_agent_that_nobody_knows(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text('chains = ["nat/MY-MASQ"]\nnetworks = ["10.42.0.0/16"]\n')
    text = IP_MASQ_AGENT.replace("{chain}", "MY-MASQ")
    case = iptables(str(profile), "MY-MASQ", text, Backend.NFT)
    with world(tmp_path) as made:
        outside, exempt = (str(address) for address in made.cluster.far_end.addresses[V4][:2])
        write(made, case, f"{exempt}/32")
        made.guard("--profile", case.profile)
        made.until_state("standing by")
        made.on_node(*case.damage)
        assert (source(made, outside), source(made, exempt)) == (str(made.node.address), str(made.pod.address))
        made.until_state("carrying")
        assert made.state()["families"]["ipv6"]["networks"] == []


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
@pytest.mark.parametrize("family", list(Family))
def test_a_decision_that_stands_in_an_ipset_is_refused_and_the_set_is_named(
    tmp_path: Path, backend: Backend, family: Family
) -> None:
    """Whether it says what is translated or what is exempt; the kernel's rule has a number for it and no name."""
    programs("ipset")
    pods, kind = ("10.42.0.0/16", "inet") if family is Family.IPV4 else ("fd42::/48", "inet6")
    with world(tmp_path, backend=backend, family="dual") as made:
        made.on_node("ipset", "create", "another", "hash:net", "family", kind)
        made.on_node("ipset", "create", "no-nat-for", "hash:net", "family", kind)
        made.on_node("ipset", "create", "cali40masq-ipam-pools", "hash:net", "family", kind)
        program = f"{family.iptables}-{backend}-restore"

        def refused(chain: str, rule: str, profile: str) -> str:
            text = f"*nat\n:{chain} - [0:0]\n-A POSTROUTING -j {chain}\n-A {chain} {rule}\nCOMMIT\n"
            (tmp_path / "rules").write_text(text)
            (tmp_path / "guard.log").unlink(missing_ok=True)
            made.on_node(program, str(tmp_path / "rules"))
            before = tables(made)
            guard = made.guard("--profile", profile, "--network", pods, ready=False)
            assert guard.wait(timeout=HANG) == 3
            assert tables(made) == before
            return made.log()

        pools = "-m set --match-set cali40masq-ipam-pools src -j MASQUERADE"
        unknown = "cali-nat-outgoing rule 1 (set cali40masq-ipam-pools, whose members are not known from the rules)"
        assert unknown in refused("cali-nat-outgoing", pools, "calico")
        exempt = f"-m set --match-set no-nat-for dst -j RETURN\n-A FLANNEL-POSTRTG -s {pods} -j MASQUERADE"
        assert "FLANNEL-POSTRTG rule 1: set no-nat-for, whose members are not known from the rules" in refused(
            "FLANNEL-POSTRTG", exempt, "flannel"
        )


def test_where_there_is_nothing_to_learn_from_it_waits_and_touches_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        before = tables(made)
        made.guard("--profile", "cilium")
        made.until_state("waiting for rules to learn from")
        assert tables(made) == before
        code, words = made.command("status")
        assert (code, "waiting for rules" in words) == (1, True), words
        write(made, CASES["cilium"], "198.51.100.200/32")
        until(lambda: made.side()["state"] == "standing by", "the rules being learned")


def test_a_guard_that_begins_before_there_is_a_way_out_learns_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At boot: the agent's rule names an interface that no default route leads to yet."""
    monkeypatch.setattr(live, "_EVERY", 0.2)
    monkeypatch.setattr(live, "_SOON", 0.2)
    with world(tmp_path) as made:
        route = made.on_node("ip", "-4", "route", "show", "default").split()
        interface = route[route.index("dev") + 1]
        made.on_node("ip", "link", "set", interface, "down")
        made.on_node("ip", "link", "set", interface, "name", "ens3")
        made.on_node("ip", "-4", "route", "flush", "default")
        chain = "FLANNEL-POSTRTG"
        text = f"*nat\n:{chain} - [0:0]\n-A POSTROUTING -j {chain}\n"
        text += f"-A {chain} -s 10.42.0.0/16 -o ens3 -j MASQUERADE\nCOMMIT\n"
        (tmp_path / "rules").write_text(text)
        made.on_node("iptables-nft-restore", str(tmp_path / "rules"))
        with quick_guard(made, V4) as reporter:
            until(lambda: state(reporter, V4) == "waiting for rules to learn from", "the guard being there")
            made.on_node("ip", "link", "set", "ens3", "up")
            made.on_node("ip", *f"route add default {' '.join(route[1 : route.index('dev')])} dev ens3".split())
            until(lambda: state(reporter, V4) == "standing by", "the standby")
            made.on_node("iptables-nft", "-t", "nat", "-F", chain)
            until(lambda: state(reporter, V4) == "carrying", "the gap")
            assert translated(made)
