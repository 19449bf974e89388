"""The running agent restores what others damage, names them, and tells the truth on /readyz."""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Iterator

import pytest
from tests.contract.adoption import is_right
from tests.kernel.agent.nodes import Agent, agent_in, lab_with

from hitless.agent.node import AgentNode
from hitless.errors import ProgramError
from hitless.kernel import netlink
from hitless.kernel.nftables import dump
from hitless.lab.building import Lab
from hitless.lab.saboteurs import FAULTS, SabotageTarget
from hitless.model.families import Backend, Family
from hitless.semantics import evaluate, witnesses
from hitless.sources import FamilyNetworks, SourceSnapshot

pytestmark = pytest.mark.kernel

FAMILIES = (Family.IPV4, Family.IPV6)
REFUSALS = ("policy-drop", "drop-in-front")
"""Somebody's will to drop: reported, not overruled."""


@pytest.fixture(params=list(Backend), ids=str)
def made(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with lab_with(request.param) as one:
        yield one


@pytest.fixture
def port(made: Lab) -> Iterator[AgentNode]:
    with AgentNode(made.nodes[0].namespace) as opened:
        yield opened


def networks_of(made: Lab) -> SourceSnapshot:
    """What the agent in the lab's first node is configured with."""
    subnets = made.nodes[0].subnets
    return SourceSnapshot(
        {one: FamilyNetworks(made.plan.network(one), subnets[one]) for one in FAMILIES}, True, True, True
    )


def right(port: AgentNode, made: Lab) -> bool:
    """The node's rules are exactly the desired ones and carry every family's pods."""
    try:
        is_right(port.observe(FAMILIES), networks_of(made), made.plan.backend)
    except AssertionError:
        return False
    return egress(port, made)


def egress(port: AgentNode, made: Lab) -> bool:
    """Whether the evaluator says that every family's pods are carried."""
    networks = networks_of(made)
    rules = port.egress(FAMILIES)
    return all(
        evaluate(rules, packet).state == "carried"
        for one in networks.networks.values()
        for packet in witnesses(one.network, one.subnet, iif=made.pods[0].interface, oif=made.nodes[0].uplink)
    )


def not_ready(agent: Agent, reason: str) -> bool:
    status, body = agent.ready()
    return status == 503 and reason in str(body["reasons"])


def damage(name: str, target: SabotageTarget) -> None:
    """A reload by single commands fails when a second passes between two of them: the rules are put back then."""
    for _ in range(5):
        begun = time.monotonic()
        try:
            FAULTS[name](target).act()
        except ProgramError:
            if time.monotonic() - begun < 0.9:
                raise
        else:
            return
    raise AssertionError(f"{name} cannot be done beside the agent")


def test_every_damage_is_repaired_and_its_writer_named(made: Lab, port: AgentNode) -> None:
    target = SabotageTarget.of(made.cluster, made.nodes[0])
    with agent_in(made) as agent:
        agent.wait(lambda: right(port, made), "the first rules")
        for name in FAULTS:
            if name in REFUSALS:
                continue
            told = len(agent.said)
            damage(name, target)
            agent.wait(lambda: right(port, made), f"repair of {name}")
            touched = not made.plan.backend.native or name not in ("flush-filter", "firewalld-reload")
            if touched and not (name == "flush-ruleset" and made.plan.backend is Backend.LEGACY):
                agent.wait(lambda told=told: agent.events("repaired", told), f"word of {name}")  # type: ignore[misc]
                writer = agent.events("repaired", told)[-1]["writer"]
                # a legacy program lives for two milliseconds, and its name may be gone when it is asked for
                known = ("nft", "tables", "unknown") if made.plan.backend is Backend.LEGACY else ("nft", "tables")
                assert any(word in writer for word in known), (name, writer)
            # what is done while whole tables are being worked on is taken for a part of that
            agent.wait(lambda: agent.ready()[0] == 200, "ready again")
        assert agent.end() == 0
    assert right(port, made)


def test_a_foreign_drop_is_reported_on_readyz_and_not_overruled(made: Lab, port: AgentNode) -> None:
    target = SabotageTarget.of(made.cluster, made.nodes[0])
    with agent_in(made, "--iptables-resync=1") as agent:
        with FAULTS["drop-in-front"](target):
            agent.wait(
                lambda: not_ready(agent, "new connections are dropped: FORWARD rule 1"), "not ready, with the reason"
            )
        agent.wait(lambda: agent.ready()[0] == 200, "ready again")


def test_stopping_changes_nothing_and_a_restart_writes_nothing(made: Lab, port: AgentNode) -> None:
    with agent_in(made) as agent:
        assert agent.end(signal.SIGTERM) == 0
    node = made.nodes[0].namespace
    with netlink.Socket(netlink.NETFILTER, node) as control:
        before = dump.generation(control)
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            with agent_in(made) as agent:
                assert not agent.events("change")
                agent.end(number)
        assert dump.generation(control) == before


def test_a_fight_is_noticed_and_named(made: Lab, port: AgentNode) -> None:
    target = SabotageTarget.of(made.cluster, made.nodes[0])
    with agent_in(made) as agent:
        for _ in range(3):
            told = len(agent.said)
            FAULTS["flush-chain"](target).act()
            agent.wait(lambda told=told: agent.events("repaired", told), "repair")  # type: ignore[misc]
        agent.wait(lambda: agent.events("fight"), "word of the fight")
        agent.wait(lambda: agent.ready()[1]["fighting"], "word of it on /readyz")
        fight: dict[str, str] = agent.events("fight")[0]
        assert any(word in fight["writer"] for word in ("nft", "tables", "unknown"))


@pytest.mark.parametrize("made", [Backend.LEGACY], ids=str, indirect=True)  # the others take no lock
def test_a_held_lock_is_reported_and_traffic_goes_on(made: Lab, port: AgentNode) -> None:
    lock = made.nodes[0].root / "run/xtables.lock"
    target = SabotageTarget.of(made.cluster, made.nodes[0])
    with agent_in(made, "--lock-wait=1") as agent:
        FAULTS["duplicate"](target).act()
        agent.wait(lambda: right(port, made), "repair")
        told = len(agent.said)
        with lock.open("r+") as file:
            # damage that leaves the egress path standing, made while the lock is ours
            fcntl.flock(file, fcntl.LOCK_EX)
            rule = "FLANNEL-POSTRTG -m comment --comment 'flanneld masq' -j RETURN"
            target.run("sh", "-c", f"XTABLES_LOCKFILE=/run/other.lock iptables-legacy -t nat -A {rule}")
            agent.wait(lambda: agent.events("not applied", told), "word of the lock")
            agent.wait(lambda: not_ready(agent, "lock"), "not ready, with the reason")
            assert egress(port, made)
        agent.wait(lambda: right(port, made) and agent.ready()[0] == 200, "repair with the lock free")
