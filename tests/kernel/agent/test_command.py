"""The command in a namespace: bad input touches nothing, ``plan`` changes nothing, ``cleanup`` removes what is ours."""

from __future__ import annotations

import json
import signal
import sys
import time

import pytest
from tests.kernel.agent.nodes import HANG, agent_in, plan_of
from tests.kernel.nftables.nodes import Node, missing, programs

from hitless import lab
from hitless.errors import MissingError
from hitless.kernel import netlink, processes
from hitless.kernel.nftables import dump
from hitless.lab.building import Lab
from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel

HITLESS = (sys.executable, "-P", "-m", "hitless", "agent")
CONF = '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}'
GOOD = ("--ip-masq", f"--net-config={CONF}", "--node-subnet=10.42.1.0/24", "--subnet-file=/run/subnet.env")


def run(place: Node, *words: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    done = processes.run([*HITLESS, *words], namespace=place.namespace, check=False, environment=environment)
    return done.returncode, done.stdout, done.stderr


def generation(place: Node) -> int:
    with netlink.Socket(netlink.NETFILTER, place.namespace) as control:
        return dump.generation(control)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([f"--net-config={CONF}", "--subnet-file=/run/none"], "--node-subnet"),
        ([f"--net-config={CONF}", "--kube-subnet-mgr", "--subnet-file=/run/none"], "NODE_NAME"),
        (["--net-config-path=/nonexistent/net-conf.json"], "/nonexistent/net-conf.json"),
        ([*GOOD, "--healthz-port=1", "--healthz-ip=192.0.2.254"], "--healthz-ip"),
    ],
)
def test_wrong_input_is_one_message_and_the_kernel_is_untouched(place: Node, words: list[str], named: str) -> None:
    before = generation(place)
    code, out, err = run(place, *words, environment={"NODE_NAME": ""})
    assert code == 1 and out == ""
    lines = [line for line in err.splitlines() if not line.startswith("{")]
    assert len(lines) == 1 and named in lines[0] and "Traceback" not in err
    assert generation(place) == before


def test_plan_prints_the_transactions_and_changes_nothing(place: Node) -> None:
    before = generation(place)
    code, text, _ = run(place, "plan", *GOOD)
    assert code == 0 and "# iptables-nft-restore" in text and "--random-fully" in text
    code, text, _ = run(place, "plan", "--json", *GOOD)
    told = json.loads(text)
    assert told["backend"] == "nft" and len(told["transactions"]) == 2
    assert generation(place) == before
    # it is the exact text: the real program takes it
    for one in told["transactions"]:
        place.run(one["program"], "--noflush", stdin=one["text"])
    code, text, _ = run(place, "plan", *GOOD)
    assert code == 0 and text.strip() == "nothing to do"


def test_cleanup_removes_what_is_ours_in_every_backend(place: Node) -> None:
    for backend in Backend:
        _, text, _ = run(place, "plan", "--json", f"--backend={backend}", *GOOD)
        for one in json.loads(text)["transactions"]:
            if not one["removes"]:
                options = ["-f", "-"] if one["program"] == "nft" else ["--noflush"]
                place.run(one["program"], *options, stdin=one["text"])
    place.iptables("-t", "nat", "-A", "POSTROUTING", "-s", "172.17.0.0/16", "-j", "MASQUERADE")
    code, text, _ = run(place, "cleanup")
    assert code == 0 and "removed" in text
    everything = place.run("nft", "list", "ruleset") + place.run("iptables-legacy-save")
    assert "FLANNEL" not in everything and "flannel" not in everything
    assert "172.17.0.0/16" in everything
    assert run(place, "cleanup")[1].strip() == "nothing to do"


def everything_else(made: Lab) -> list[str]:
    """The node's rules of all backends without ours, links, routes and rules."""
    found: list[str] = []
    commands = [
        ["ip", "-o", "link"], ["ip", "route", "show", "table", "all"], ["ip", "-6", "route", "show", "table", "all"],
        ["ip", "rule"], ["ip", "-6", "rule"],
        *([f"{family.iptables}-{kind}-save"] for family in Family for kind in ("nft", "legacy")),
    ]  # fmt: skip
    for command in commands:
        for line in processes.run(command, namespace=made.nodes[0].namespace).stdout.splitlines():
            plain = line.split(" expires ")[0]
            if plain.startswith("#") or "FLANNEL" in plain:
                continue
            found.append(plain.partition(" [")[0] if plain.startswith(":") else plain)
    return found


@pytest.mark.parametrize("backend", list(Backend))
def test_everything_else_on_the_node_is_the_same_before_and_after(backend: Backend) -> None:
    programs("nft", "iptables-nft", "iptables-legacy", "ip")
    try:
        made = lab.up(plan_of(backend, services=20))
    except MissingError as error:
        missing(str(error))
        raise
    with made:
        # saving reads every table, which makes the legacy ones: once before the comparison
        everything_else(made)
        before = everything_else(made)
        with agent_in(made) as agent:
            processes.run(["nft", "list", "ruleset"], namespace=made.nodes[0].namespace)
            assert agent.end(signal.SIGTERM) == 0
        after = everything_else(made)
        # iptables-nft makes the base chain that it writes to, where nobody had made it
        assert [line for line in after if line not in before] == []
        assert [line for line in before if line not in after] == []


def test_pods_of_an_earlier_network_keep_their_egress_until_the_last_one_is_gone() -> None:
    programs("nft", "iptables-nft", "ip")
    try:
        made = lab.up(plan_of(Backend.NFT))
    except MissingError as error:
        missing(str(error))
        raise
    new = '{"Network": "10.99.0.0/16", "Backend": {"Type": "vxlan"}}'
    more = (f"--net-config={new}", "--node-subnet=10.99.1.0/24", "--subnet-file=/run/new.env", "--iptables-resync=1")
    with made:
        namespace = made.nodes[0].namespace

        def masquerades() -> str:
            text = processes.run(["iptables-nft-save", "-t", "nat"], namespace=namespace).stdout
            return "\n".join(line for line in text.splitlines() if "FLANNEL" in line and "MASQ" in line)

        with agent_in(made):
            assert "-s 10.42.0.0/16" in masquerades()
        node = made.nodes[0]
        command = [*HITLESS, "--ip-masq", *more, "--healthz-ip=127.0.0.1", "--healthz-port=10990"]
        process = processes.start(command, namespace=node.namespace)
        try:
            deadline = time.monotonic() + HANG
            while "-s 10.99.0.0/16" not in masquerades():
                assert time.monotonic() < deadline
            assert "-s 10.42.0.0/16" in masquerades(), "the running pod lost its egress"
            pod = made.pods[0]
            processes.run(["ip", "route", "del", f"{pod.addresses[Family.IPV4]}/32"], namespace=namespace)
            while "-s 10.42.0.0/16" in masquerades():
                assert time.monotonic() < deadline, "the old network's rules were kept for nobody"
        finally:
            process.kill()
            process.wait()
