"""The guard under bad conditions: one right only, a full disk, rivals, kills at any moment, old tables, old kernels."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from tests.kernel.guard.guarded import CLI, HANG, World, nft, tables, unhurt, until, world
from tests.kernel.guard.test_guard_limits import poison, translated

from hitless.daemon.logs import Log
from hitless.guard import images, primaries, running
from hitless.guard.journal import Journal
from hitless.guard.reporting import Reporter
from hitless.guard.standby_rules import learn
from hitless.guard.standby_table import StandbyTable
from hitless.kernel import processes
from hitless.kernel.clock import Clock
from hitless.kernel.nftables import read_ruleset
from hitless.kernel.nftables.owned import OwnedTables
from hitless.model.families import Backend, Family
from hitless.model.standby import TABLE

pytestmark = pytest.mark.kernel
V4 = Family.IPV4
NET_ADMIN_ONLY = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "--no-new-privs"]


def standby(made: World) -> str:
    """The guard's own table as nft lists it, without counters and without a word on who owns it just now."""
    lines = made.on_node("nft", "-s", "list", "table", "ip", TABLE).splitlines()
    return "\n".join(line for line in lines if not line.strip().startswith(("table ip", "flags")))


def flush(made: World) -> None:
    made.on_node("iptables-nft", "-t", "nat", "-F", "FLANNEL-POSTRTG")


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_net_admin_is_all_that_it_needs(tmp_path: Path, backend: Backend) -> None:
    with world(tmp_path, backend=backend, family="dual") as made:
        agent = made.agent("flannel-0.26")
        with (tmp_path / "guard.log").open("ab") as log:
            guard = processes.start(
                [*NET_ADMIN_ONLY, *CLI, "guard", "--journal", str(tmp_path / "journal.jsonl")],
                namespace=made.node.namespace,
                stderr=log,
            )
        made.started.append(guard)
        for family in Family:
            made.until_state("standing by", family)
        status = Path(f"/proc/{guard.pid}/status").read_text()
        (effective,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
        assert effective == 1 << 12, f"it has {effective:#x}"
        with made.probing() as told:
            made.end(agent)
            for family in Family:  # the agent takes care of both at the same time, in no order
                made.until_state("carrying", family)
            time.sleep(0.5)
            made.agent("flannel-0.26")
            for family in Family:
                made.until_state("standing by", family)
        assert unhurt(told), told
        assert {gap["family"] for gap in made.records("gap")} == {"ipv4", "ipv6"}
        assert made.side()["protected"] or "owner" not in made.log()


def test_it_listens_on_nothing_unless_told_to(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        made.guard()
        made.until_state("standing by")

        def listening() -> list[str]:
            found = []
            for name in ("tcp", "tcp6", "udp", "udp6"):
                lines = made.on_node("cat", f"/proc/self/net/{name}").splitlines()[1:]
                found += [line for line in lines if name.startswith("udp") or line.split()[3] == "0A"]
            return found

        assert listening() == []
        made.end(made.started[-1])
        made.guard("--metrics", "127.0.0.1:9470")
        until(lambda: len(listening()) == 1, "the metrics' port")


def test_without_the_right_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        before = tables(made)
        line = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *CLI, "guard", "--journal", ""]
        done = processes.run(line, namespace=made.node.namespace, check=False, timeout=HANG)
        assert done.returncode == 3
        assert "CAP_NET_ADMIN" in done.stderr
        assert tables(made) == before


def test_a_log_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    """A container's log is a pipe; its reader stands still when the node's disk is full."""
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
        # as under systemd: the image has its streams unbuffered, and waits in another place
        command = ["env", "-u", "PYTHONUNBUFFERED", *CLI, "guard", "--journal", str(tmp_path / "journal.jsonl")]
        guard = processes.start(command, namespace=made.node.namespace, stderr=writing)
        made.started.append(guard)
        os.close(writing)
        made.until_state("standing by")
        flush(made)
        made.until_state("carrying")
        assert translated(made)
        code, words = made.command("remove")  # it ends, too
        assert (code, "stopped the guard" in words) == (0, True), words
        assert guard.wait(timeout=HANG) == 0
        os.close(reading)
        assert made.records("gap")


def test_a_full_disk_costs_records_and_nothing_else(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        made.on_node("sh", "-c", "mkdir /run/small && mount -t tmpfs -o size=8k tmpfs /run/small")
        made.guard("--journal", "/run/small/journal")
        made.until_state("standing by")
        made.on_node("sh", "-c", "cat /dev/zero > /run/small/filler 2>/dev/null; true")
        saved = made.on_node("iptables-nft-save", "-t", "nat")
        (tmp_path / "saved").write_text(saved)

        def lost_after_a_gap() -> int:
            before = made.side()["gaps"]
            flush(made)
            made.on_node("iptables-nft-restore", str(tmp_path / "saved"))
            until(lambda: made.side()["gaps"] > before, "the gap being counted")
            return int(made.state()["records_lost"])

        with made.probing() as told:
            until(lost_after_a_gap, "a record being lost")
        assert unhurt(told), told
        code, words = made.command("status")
        assert (code, "could not be written" in words) == (0, True), words
        made.on_node("rm", "/run/small/filler")
        lost_after_a_gap()
        until(lambda: made.state()["journal_problem"] == "", "the journal being written again")
        lines = made.on_node("cat", "/run/small/journal").splitlines()
        assert [json.loads(line)["type"] for line in lines][-1] == "gap"


def test_of_two_guards_that_begin_at_once_one_stays(tmp_path: Path) -> None:
    """They share no file system, so that only the kernel can keep them apart."""
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        rivals = [
            processes.start(
                [*CLI, "guard", "--journal", "", "--run-dir", f"/run/rival-{number}"],
                namespace=made.node.namespace,
                stderr=processes.PIPE,
            )
            for number in range(3)
        ]
        made.started += rivals
        try:
            until(lambda: sum(rival.poll() is None for rival in rivals) == 1, "one being left")
            ended = [rival for rival in rivals if rival.poll() is not None]
            assert [rival.returncode for rival in ended] == [3, 3]
            for rival in ended:
                assert rival.stderr is not None
                assert b"another running process" in rival.stderr.read()
            assert "masquerade" in standby(made)
            flush(made)
            assert translated(made)
        finally:
            for rival in rivals:
                rival.kill()
                rival.wait()
                assert rival.stderr is not None
                rival.stderr.close()


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_a_whole_standby(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        first = made.guard()
        made.until_state("standing by")
        whole = standby(made)
        (tmp_path / "saved").write_text(made.on_node("iptables-nft-save", "-t", "nat"))
        stop = threading.Event()

        def churn() -> None:
            while not stop.is_set():
                flush(made)
                made.on_node("iptables-nft-restore", str(tmp_path / "saved"))

        churning = threading.Thread(target=churn)
        moments = random.Random(7)
        with made.probing() as told:
            churning.start()
            try:
                made.end(first, signal.SIGKILL)
                for _ in range(12):
                    guard = made.guard(ready=False)
                    time.sleep(moments.uniform(0.05, 0.6))
                    made.end(guard, signal.SIGKILL)
                    assert standby(made) == whole
            finally:
                stop.set()
                churning.join()
        assert unhurt(told), told
        made.guard()
        made.until_state("standing by")
        assert standby(made) == whole
        for line in (tmp_path / "journal.jsonl").read_text().splitlines():
            json.loads(line)


def test_a_table_of_another_version_is_replaced_in_one_step(tmp_path: Path) -> None:
    """The upgrade happens in the gap, with the older version's table the only one that carries."""
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        learned = learn(read_ruleset(made.node.namespace, (V4,)), V4, primaries.load("flannel"))
        places = [(place.network, place.subnet) for place in learned.places]
        older = OwnedTables(TABLE, made.node.namespace)
        older.replace({V4: images.image(V4, learned.chains, places, meter=False)}, images.COUNTERS)
        older.close()
        assert "meter." not in standby(made)
        with made.probing() as told:
            flush(made)
            made.guard()
            made.until_state("carrying")
            time.sleep(0.3)
        assert unhurt(told), told
        assert "meter." in standby(made)


def test_on_an_older_kernel_a_flushed_standby_is_back_at_once_and_what_slipped_through_is_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the kernel's owner flag ``nft flush ruleset`` takes everything: the agent's rules and the standby."""
    monkeypatch.setattr(running, "StandbyTable", partial(StandbyTable, flags=0))
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        stop = threading.Event()
        reporter = Reporter(Log(io.StringIO()), Journal(tmp_path / "journal.jsonl"), Clock())
        settings = running.GuardSettings(families=(V4,))
        guard = running.Guard(settings, reporter, Log(io.StringIO()), namespace=made.node.namespace)
        thread = threading.Thread(target=guard.run, args=(stop,))
        thread.start()
        try:
            until(made.counters, "the standby standing")
            before = standby(made)
            with made.far_udp() as receiver:
                nft(made, f"flush table ip {TABLE}")
                until(lambda: standby(made) == before, "what was emptied being back")
                nft(made, "flush ruleset")
                slipped = poison(made, V4, 1)[0]
                receiver.recvfrom(64)
                until(lambda: len(made.records("note")) == 2, "the notes")
                assert all("took the standby away; it is back" in note["text"] for note in made.records("note"))
                assert standby(made) == before
                # whether it slipped through or not: it works now
                until(lambda: (slipped.send(b"x"), receiver.recvfrom(64))[1][1][0] == str(made.node.address), "it")
                slipped.close()
        finally:
            stop.set()
            thread.join()


def test_a_drop_by_a_foreign_rule_leaves_nothing_to_heal(tmp_path: Path) -> None:
    """Behind the translation or in forward: what was dropped has no entry, and works as soon as the rule goes."""
    with world(tmp_path) as made, made.far_udp() as receiver:
        made.agent("flannel-0.28", "--resync", "3600")
        made.guard()
        made.until_state("standing by")
        for hook, priority in (("forward", 0), ("postrouting", 300)):
            chain = f"type filter hook {hook} priority {priority}; udp dport 9 drop;"
            nft(made, f"table inet foreign {{ chain c {{ {chain} }}; }}")
            senders = poison(made, V4, 3)
            nft(made, "delete table inet foreign")
            for sender in senders:
                sender.send(b"again")
                assert receiver.recvfrom(64)[1][0] == str(made.node.address)
                sender.close()
        assert made.records("healed") == []


def test_an_agent_that_switched_masquerading_off_while_no_guard_ran_is_believed(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        agent = made.agent("flannel-0.26")
        guard = made.guard()
        made.until_state("standing by")
        made.end(guard, signal.SIGKILL)
        made.end(agent)  # its rules are gone
        (made.node.root / "run/flannel/subnet.env").write_text("FLANNEL_IPMASQ=false\n")
        time.sleep(0.05)
        assert translated(made)  # the standby without a guard goes on
        made.guard()
        until(lambda: made.records("withdrawn"), "the standby withdrawing")
        assert not translated(made)


def test_rules_that_stand_void_an_older_word_that_contradicts_them(tmp_path: Path) -> None:
    """The agent masquerades all the same: later damage is damage, whatever an old file says."""
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        (made.node.root / "run/flannel/subnet.env").write_text("FLANNEL_IPMASQ=false\n")
        time.sleep(0.05)
        made.guard()
        made.until_state("standing by")
        flush(made)
        made.until_state("carrying")
        assert translated(made)
        assert made.records("withdrawn") == []
