"""What /readyz says of a node is what ``hitless watch`` says of it, whoever's rules cut the pods off."""

from __future__ import annotations

import pytest
from tests.kernel.agent.nodes import Agent, agent_in, lab_with

from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.lab.building import Lab
from hitless.model.events import RuleState
from hitless.model.families import Backend, Family
from hitless.watch import Watch, WatchOptions, load

pytestmark = pytest.mark.kernel

PROFILE = {Backend.NFT: "flannel", Backend.LEGACY: "flannel", Backend.NFTABLES: "flannel-nftables"}
V4, V6, BOTH = ("ipv4",), ("ipv6",), ("ipv4", "ipv6")

TABLES = {
    "a drop in a table of a firewall": (
        "table inet fw { chain forward { type filter hook forward priority 5; ip saddr 10.0.0.0/8 drop; }; }",
        "delete table inet fw",
        V4,
    ),
    "a drop in a table of a firewall, of both families": (
        "table inet fw { chain forward { type filter hook forward priority -5; ct state new drop; }; }",
        "delete table inet fw",
        BOTH,
    ),
    "hidden from conntrack": (
        "table ip keepout { chain pre { type filter hook prerouting priority -300; ip saddr 10.0.0.0/8 notrack; }; }",
        "delete table ip keepout",
        V4,
    ),
    "a set of sources": (
        "table ip6 block { set bad { type ipv6_addr; flags interval; elements = { fd00::/8 }; };"
        " chain forward { type filter hook forward priority 0; ip6 saddr @bad drop; }; }",
        "delete table ip6 block",
        V6,
    ),
    "answers dropped at prerouting": (
        "table ip noback { chain pre { type filter hook prerouting priority -150;"
        ' iifname != "lo" ct direction reply drop; }; }',
        "delete table ip noback",
        V4,
    ),
    "a verdict map at postrouting": (
        "table inet last { chain post { type filter hook postrouting priority 200;"
        ' oifname != "lo" meta l4proto vmap { tcp : drop, udp : drop }; }; }',
        "delete table inet last",
        BOTH,
    ),
}


def watched(node: Namespace, profile: str) -> dict[str, str]:
    """What ``watch --once`` says of each family."""
    with Watch(WatchOptions(load(profile), node, urgent=False)) as watch:
        return {one.family: one.state for one in watch.once() if isinstance(one, RuleState)}


def agrees(agent: Agent, profile: str, cut: tuple[str, ...], words: str) -> None:
    """The watch says so, and /readyz comes to say the same."""
    told = watched(agent.node.namespace, profile)
    assert told == {family.value: "not_carried" if family.value in cut else "carried" for family in Family}, words

    def same() -> bool:
        status, body = agent.ready()
        families = {one.partition(":")[0] for one in body["reasons"]}
        return families == set(cut) and status == (503 if cut else 200)

    agent.wait(same, f"/readyz to say what the watch says of {words}")


@pytest.mark.parametrize("backend", list(Backend), ids=lambda one: one.value)
def test_others_rules_that_cut_the_pods_off_make_the_node_not_ready(backend: Backend) -> None:
    with lab_with(backend) as made, agent_in(made) as agent:
        agrees(agent, PROFILE[backend], (), "an untouched node")
        share = list(Backend).index(backend)  # each of them once, beside one backend
        for words, (make, unmake, cut) in list(TABLES.items())[share::3]:
            nft(made, make)
            agrees(agent, PROFILE[backend], cut, words)
            nft(made, unmake)
            agrees(agent, PROFILE[backend], (), f"the end of: {words}")
        if backend.native:
            a_foreign_rule_in_our_chain(made, agent)
        else:
            iptables_cuts(made, agent, f"iptables-{backend.value}", PROFILE[backend])
        assert not agent.events("repaired")
        said = len(agent.events("not carried"))
        assert said
        agent.wait(lambda: len(agent.events("carried again")) == said, "as many ends as beginnings in the log")


def iptables_cuts(made: Lab, agent: Agent, program: str, profile: str) -> None:
    """In tables that the agent has no rules in, and by an ipset whose members change without an event."""
    rule = ["raw", "PREROUTING", "-s", "10.0.0.0/8", "-j", "NOTRACK"]
    for table, chain, *match in (rule, ["mangle", "FORWARD", "-s", "10.0.0.0/8", "-j", "DROP"]):
        run(made, program, "-w", "-t", table, "-I", chain, *match)
        agrees(agent, profile, V4, f"{program} {table}")
        run(made, program, "-w", "-t", table, "-D", chain, *match)
        agrees(agent, profile, (), f"the end of {program} {table}")
    run(made, "ipset", "create", "banned", "hash:net")
    match = ["FORWARD", "-m", "set", "--match-set", "banned", "src", "-j", "DROP"]
    run(made, program, "-w", "-t", "filter", "-I", *match)
    agrees(agent, profile, (), "an empty ipset")
    run(made, "ipset", "add", "banned", "10.0.0.0/8")
    agrees(agent, profile, V4, "a member of an ipset")
    run(made, program, "-w", "-t", "filter", "-D", *match)
    agrees(agent, profile, (), "the ipset's rule gone")


def a_foreign_rule_in_our_chain(made: Lab, agent: Agent) -> None:
    """A plain chain that somebody adds to flannel's table, and calls."""
    nft(made, "add chain ip flannel-ipv4 extra; add rule ip flannel-ipv4 extra ip protocol { tcp, udp, icmp } drop")
    nft(made, "insert rule ip flannel-ipv4 forward jump extra")
    agrees(agent, PROFILE[Backend.NFTABLES], V4, "a chain of somebody's in flannel's table")
    nft(made, "flush chain ip flannel-ipv4 extra")
    agrees(agent, PROFILE[Backend.NFTABLES], (), "that chain flushed")


def nft(made: Lab, text: str) -> None:
    run(made, "nft", "-f", "-", stdin=text + "\n")


def run(made: Lab, *command: str, stdin: str = "") -> None:
    processes.run(command, namespace=made.nodes[0].namespace, stdin=stdin)
