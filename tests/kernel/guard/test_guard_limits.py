"""Decisions that are followed, harm that is not done, flows that are freed, and what is only reported."""

from __future__ import annotations

import io
import re
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.guard.guarded import HANG, World, tables, until, world

from hitless.daemon.logs import Log
from hitless.guard import primaries, running, side, standby_rules
from hitless.guard.journal import Journal
from hitless.guard.reporting import Reporter
from hitless.guard.standby_rules import StandbyRules, standby_of
from hitless.guard.standby_table import StandbyTable
from hitless.kernel import processes
from hitless.kernel.clock import Clock
from hitless.kernel.conntrack import SEEN_REPLY, SRC_NAT, Conntrack
from hitless.kernel.nftables import read_ruleset
from hitless.kernel.nftables.owned import OwnedTables
from hitless.model.families import Backend, Family
from hitless.model.rules import Destination, Masquerade, Rule
from hitless.model.standby import TABLE

pytestmark = pytest.mark.kernel
V4 = Family.IPV4


def sources(made: World, receiver: socket.socket, sender: socket.socket, count: int = 1) -> set[str]:
    """The source addresses under which the far end sees ``count`` datagrams of a socket."""
    found = set()
    for number in range(count):
        sender.send(b"%d" % number)
        found.add(str(receiver.recvfrom(64)[1][0]))
    return found


def translated(made: World, family: Family = V4) -> bool:
    """Whether a new flow leaves with the node's address."""
    with made.far_udp(family) as receiver, made.udp(family) as sender:
        (source,) = sources(made, receiver, sender)
    return source == str(made.node.addresses[family])


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_masquerading_that_the_agent_says_is_off_is_not_bridged(tmp_path: Path, backend: Backend) -> None:
    with world(tmp_path, backend=backend) as made:
        agent = made.agent("flannel-0.26")
        made.guard()
        made.until_state("standing by")
        made.end(agent)  # it takes its rules away
        assert translated(made)
        (made.node.root / "run/flannel/subnet.env").write_text("FLANNEL_IPMASQ=false\n")
        until(lambda: made.records("withdrawn"), "the standby withdrawing")
        assert "FLANNEL_IPMASQ=false" in made.records("withdrawn")[0]["why"]
        assert not translated(made)
        # and on again
        made.agent("flannel-0.26")
        made.until_state("standing by")


def test_an_exemption_is_followed_at_once_and_its_end_too(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        made.guard()
        made.until_state("standing by")
        exempt = ["POSTROUTING", "-s", "10.42.0.0/16", "-d", "198.51.100.0/24", "-j", "RETURN"]
        made.on_node("iptables-nft", "-t", "nat", "-I", *exempt)
        until(lambda: len(made.records("followed")) == 2, "the exemption being followed")
        assert not translated(made)
        made.on_node("iptables-nft", "-t", "nat", "-D", *exempt)
        until(lambda: len(made.records("followed")) == 3, "the exemption's end being followed")
        assert translated(made)
        assert made.counters()["carried"].packets == 0


def test_a_new_subnet_is_followed(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        agent = made.agent("flannel-0.28")
        made.guard()
        made.until_state("standing by")
        made.end(agent)
        made.agent("flannel-0.28", "--network", "10.42.0.0/16", "--subnet", "10.42.77.0/24")
        listing = f"nft list table ip {TABLE}".split()
        until(lambda: "10.42.77.0/24" in made.on_node(*listing), "the standby following")
        made.until_state("standing by")


def test_rules_that_cannot_be_copied_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        odd = "-t nat -I POSTROUTING -m statistic --mode random --probability 0.5 -j ACCEPT".split()  # noqa: SIM905
        made.on_node("iptables-nft", *odd)
        before = tables(made)
        guard = made.guard(ready=False)
        assert guard.wait(timeout=HANG) == 3
        assert "cannot tell what the primary (flannel) means" in made.log()
        assert "POSTROUTING rule 1" in made.log()
        assert tables(made) == before


def test_one_family_that_cannot_be_copied_keeps_the_other_from_being_written_too(tmp_path: Path) -> None:
    """The message says that nothing was changed: IPv4's standby once stood by then."""
    with world(tmp_path, family="dual") as made:
        made.agent("flannel-0.28")
        odd = "-t nat -I POSTROUTING -m statistic --mode random --probability 0.5 -j ACCEPT".split()  # noqa: SIM905
        made.on_node("ip6tables-nft", *odd)
        before = tables(made)
        guard = made.guard(ready=False)
        assert guard.wait(timeout=HANG) == 3
        assert "for ipv6" in made.log()
        assert "nothing was changed" in made.log()
        assert tables(made) == before
        assert made.records() == []  # a guard that refuses has not started


def test_rules_that_become_unclear_make_the_standby_withdraw(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        made.guard()
        made.until_state("standing by")
        odd = ["POSTROUTING", "-m", "statistic", "--mode", "random", "--probability", "0.5", "-j", "ACCEPT"]
        made.on_node("iptables-nft", "-t", "nat", "-I", *odd)
        made.until_state("withdrawn")
        assert "masquerade" not in made.on_node(*f"nft list table ip {TABLE}".split())
        made.on_node("iptables-nft", "-t", "nat", "-D", *odd)
        made.until_state("standing by")


def poison(made: World, family: Family, count: int) -> list[socket.socket]:
    """Flows whose first datagram left without translation; the sockets keep their ports."""
    senders = []
    for _ in range(count):
        sender = made.udp(family)
        sender.send(b"lost")
        senders.append(sender)
    return senders


@pytest.mark.parametrize("family", list(Family))
def test_flows_poisoned_before_the_guard_came_are_freed_and_no_healthy_one_is_touched(
    tmp_path: Path, family: Family
) -> None:
    with world(tmp_path, family="dual") as made, made.far_udp(family) as receiver:
        made.remember()
        made.agent("flannel-0.28", "--resync", "3600")
        program = f"{family.iptables}-nft"
        saved = made.on_node(f"{program}-save", "-t", "nat")
        healthy = [made.udp(family) for _ in range(20)]
        for sender in healthy:
            assert sources(made, receiver, sender) == {str(made.node.addresses[family])}
        made.on_node(program, "-t", "nat", "-F", "FLANNEL-POSTRTG")
        poisoned = poison(made, family, 50)
        for _ in poisoned:
            receiver.recvfrom(64)
        # back, as an agent would do it
        text = re.sub(r"^:(?!FLANNEL-POSTRTG).*\n|^-A (?!FLANNEL-POSTRTG).*\n", "", saved, flags=re.M)
        (tmp_path / "saved").write_text(text)
        made.on_node(f"{program}-restore", "--noflush", str(tmp_path / "saved"))
        pod = str(made.pod.addresses[family])
        assert sources(made, receiver, poisoned[0]) == {pod}  # broken although the rules are back
        before = kept(made, family)
        made.guard()
        until(lambda: made.records("healed"), "the flows being freed")
        for sender in poisoned:
            assert sources(made, receiver, sender) == {str(made.node.addresses[family])}
        assert sum(record["flows"] for record in made.records("healed")) == 50
        assert before <= kept(made, family)
        for sender in (*poisoned, *healthy):
            sender.close()


def kept(made: World, family: Family) -> set[object]:
    """The connections that are translated or answered, each with the kernel's id for it."""
    table = Conntrack(made.node.namespace)
    try:
        return {entry.key for entry in table.dump(family) if entry.status & (SEEN_REPLY | SRC_NAT)}
    finally:
        table.close()


def test_a_gap_in_forwarding_is_reported_with_its_writer(tmp_path: Path) -> None:
    with world(tmp_path, policy="drop") as made:
        made.agent("flannel-0.28", "--resync", "3600")
        made.guard()
        made.until_state("standing by")
        assert made.side()["forward_doubt"] == ""
        made.on_node("iptables-nft", "-F", "FLANNEL-FWD")
        until(lambda: made.side()["forward_gap_since"] > 0, "the forward gap being noticed")
        made.on_node("iptables-nft", "-A", "FLANNEL-FWD", "-s", "10.42.0.0/16", "-j", "ACCEPT")
        until(lambda: made.ended("forward_gap"), "the forward gap in the journal")
        (gap,) = made.ended("forward_gap")
        assert gap["opened_by"]["comm"] == gap["closed_by"]["comm"] == "iptables-nft"
        assert made.records("gap") == []


def test_packets_that_leave_untranslated_are_counted_and_listed(tmp_path: Path) -> None:
    """A flow that was answered without translation is healthy as far as anybody knows: it is not freed, but counted."""
    with world(tmp_path) as made, made.far_udp() as receiver, made.udp() as sender:
        pod, gateway = made.pod.address, made.node.address
        there = made.cluster.underlay.namespace
        processes.run(["ip", "route", "add", f"{pod}/32", "via", str(gateway)], namespace=there)
        transit = made.cluster.plan.transit(V4)[1]
        processes.run(
            ["ip", "route", "add", f"{pod}/32", "via", str(transit)], namespace=made.cluster.far_end.namespace
        )
        receiver.settimeout(1)
        arrived: list[Any] = []
        while not arrived:  # the first packets of a new lab may be lost: links come up behind a queue of the kernel's
            sender.send(b"before any rule")
            with suppress(TimeoutError):
                arrived += receiver.recvfrom(64)
        data, back = arrived
        assert str(back[0]) == str(pod)
        receiver.sendto(data, back)
        sender.settimeout(HANG)
        assert sender.recv(64) == data
        made.agent("flannel-0.28")
        made.guard()
        made.until_state("standing by")
        for _ in range(3):
            sender.send(b"still un-translated")
        until(lambda: made.side()["leaked"] >= 3, "the leaked packets being counted")
        (leak,) = made.records("leak")  # a leak that goes on is not written again and again
        assert leak["packets"] > 0
        assert leak["flows"][0].startswith(f"udp {pod}:")
        assert made.records("healed") == []


def test_on_kernels_without_persistent_owners_the_standby_is_restored_at_once(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        ruleset = read_ruleset(made.node.namespace, (V4,))
        standby = standby_rules.learn(ruleset, V4, primaries.load("flannel"))
        plain = StandbyTable((V4,), made.node.namespace, flags=0)
        plain.install({V4: standby})
        before = tables(made)
        made.on_node("nft", "delete", "table", "ip", TABLE)
        assert plain.restore()
        assert tables(made) == before
        assert not plain.restore()
        plain.close()
        # and a guard on a newer kernel takes such a table over, with an owner
        made.guard()
        made.until_state("standing by")
        owned = OwnedTables(TABLE, made.node.namespace)
        owner = owned.owner(V4)
        owned.close()
        assert owner is not None
        assert owner.protected == made.side()["protected"]


def test_a_standby_that_translates_what_the_primary_would_not_is_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is made wrong on purpose: it translates flows between pods, which the whole primary leaves alone."""
    exact = standby_rules.learn

    def wrong(*arguments: Any, **named: Any) -> StandbyRules:
        made = exact(*arguments, **named)
        if not made.places:
            return made
        network = made.places[0].network
        extra = Rule((Destination(network), Masquerade()))
        chains = tuple(
            replace(chain, rules=(extra, *chain.rules)) if chain.hook is not None else chain for chain in made.chains
        )
        return standby_of(made.family, chains, made.places)

    monkeypatch.setattr(side, "learn", wrong)
    with world(tmp_path, pods=2) as made:
        made.agent("flannel-0.28")
        stop = threading.Event()
        reporter = Reporter(Log(io.StringIO()), Journal(tmp_path / "journal.jsonl"), Clock())
        guard = running.Guard(
            running.GuardSettings(families=(V4,)), reporter, Log(io.StringIO()), namespace=made.node.namespace
        )
        thread = threading.Thread(target=guard.run, args=(stop,))
        thread.start()
        try:
            until(lambda: made.counters(), "the standby standing")
            address = str(made.node.pods[1].address)

            def ping() -> list[dict[str, Any]]:
                made.on_node("nsenter", f"--net={made.pod.namespace.net}", "ping", "-c1", "-W1", address, check=False)
                return made.records("withdrawn")

            until(ping, "the standby withdrawing")
        finally:
            stop.set()
            thread.join()
        assert "left alone" in made.records("withdrawn")[0]["why"]
        assert "masquerade" not in made.on_node(*f"nft list table ip {TABLE}".split())


def test_a_wrong_profile_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        before = tables(made)
        code, words = made.command("--profile", "weave")
        assert (code, "flannel" in words) == (3, True)
        assert tables(made) == before
