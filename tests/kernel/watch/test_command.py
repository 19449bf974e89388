"""``hitless watch`` as people and drills run it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.kernel.nftables.nodes import HANG, Node, missing, wait_for
from tests.kernel.watch.watched import Host

from hitless.kernel import processes
from hitless.kernel.namespaces import HERE
from hitless.model import events as e
from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel

HITLESS = [sys.executable, "-m", "hitless"]


def once(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run([*HITLESS, "watch", "--once", *arguments], namespace=node.namespace, check=False)


class Running:
    """A watch that runs, and the events that it wrote to a file."""

    def __init__(self, process: processes.Process, out: Path) -> None:
        self.process = process
        self.out = out

    @property
    def events(self) -> list[e.Event]:
        return [e.decode(line) for line in self.out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def wait_for(self, kind: type[e.Stamped], count: int = 1) -> None:
        wait_for(lambda: sum(isinstance(event, kind) for event in self.events) >= count, f"{count} {kind.__name__}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(HANG)


@contextlib.contextmanager
def running(node: Node | None, out: Path, *arguments: str) -> Iterator[Running]:
    with out.open("wb") as sink:
        namespace = HERE if node is None else node.namespace
        process = processes.start([*HITLESS, "watch", "--json", *arguments], namespace=namespace, stdout=sink)
    try:
        yield Running(process, out)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def host(node: Node) -> Host:
    host = Host(node, Family.IPV4, Backend.NFT)
    host.fill()
    return host


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_stream_begins_with_a_header_and_ends_with_open_gaps_and_a_summary(
    host: Host, tmp_path: Path, number: int
) -> None:
    with running(host.node, tmp_path / "log", "--heartbeat", "0.05") as watch:
        watch.wait_for(e.RuleState)
        host.iptables("-t nat -F FLANNEL-POSTRTG")
        watch.wait_for(e.RuleState, 2)
        watch.wait_for(e.Heartbeat, 2)
        assert watch.stop(number) == 0
        events = watch.events
    header, summary = events[0], events[-1]
    assert isinstance(header, e.Header) and header.tool == "watch"
    assert header.config["networks"] == ["10.42.0.0/16"]
    assert header.config["networks_from"] == "rules"
    assert header.config["interfaces"] == {"10.42.0.0/16": ["cali1", "eth0"]}
    assert isinstance(summary, e.Summary)
    assert (summary.totals["gaps"], summary.totals["lost_events"]) == (1, 0)
    [gap] = [event for event in events if isinstance(event, e.Gap)]
    assert gap.open and gap.end == gap.t and gap.opened_by is not None
    assert gap.opened_by.comm == "iptables-nft"
    assert [event.t for event in events if isinstance(event, e.RuleState | e.Gap)] == sorted(
        event.t for event in events if isinstance(event, e.RuleState | e.Gap)
    )


def writers_of(events: list[e.Event]) -> set[int]:
    """Whose changes were told so far."""
    return {event.writer.pid for event in events if isinstance(event, e.Change) and event.writer}


def test_the_writers_of_a_gap_are_the_processes_that_made_it(host: Host, tmp_path: Path) -> None:
    """By process id, command and arguments: the arguments as long as the writer lives."""
    namespace = host.node.namespace
    interactive = ["nft", "-i"]
    with running(host.node, tmp_path / "log") as watch:
        watch.wait_for(e.RuleState)
        writers = []
        for line in (b"flush chain ip nat FLANNEL-POSTRTG\n", b"add rule ip nat FLANNEL-POSTRTG masquerade\n"):
            process = processes.start(interactive, namespace=namespace, stdin=subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
            # it lives until its change was told: any other event may be a heartbeat
            wait_for(lambda pid=process.pid: pid in writers_of(watch.events), "the change")
            process.stdin.close()
            process.wait(HANG)
            writers.append(process.pid)
        watch.wait_for(e.Gap)
        [gap] = [event for event in watch.events if isinstance(event, e.Gap)]
    assert gap.opened_by is not None and gap.closed_by is not None
    assert [gap.opened_by.pid, gap.closed_by.pid] == writers
    assert gap.opened_by.comm == gap.closed_by.comm == "nft"
    assert gap.opened_by.argv.endswith("nft -i")
    assert gap.opened_by.parent == Path(f"/proc/{os.getpid()}/comm").read_text().strip()


def test_once_tells_the_state_by_its_exit_code(host: Host) -> None:
    done = once(host.node)
    assert (done.returncode, done.stdout.startswith("10.42.0.0/16: carried: ")) == (0, True)
    host.iptables("-t nat -I POSTROUTING -j RETURN")
    done = once(host.node, "--json")
    assert done.returncode == 1
    written = [e.decode(line.encode() + b"\n") for line in done.stdout.splitlines()]
    assert isinstance(written[0], e.Header), "a log starts with a header"
    assert isinstance(written[-1], e.Summary), "and what has no summary was cut off"
    assert [event.state for event in written if isinstance(event, e.RuleState)] == ["not_carried"]
    host.iptables("-t nat -I POSTROUTING -m statistic --mode random --probability 0.5 -j ACCEPT")
    host.iptables("-t nat -D POSTROUTING 2")
    done = once(host.node)
    assert (done.returncode, "cannot tell" in done.stdout) == (2, True)


def test_once_without_any_known_pod_network_cannot_tell_and_says_what_helps(node: Node) -> None:
    done = once(node)
    assert done.returncode == 2
    assert "--network" in done.stderr
    assert once(node, "--network", "10.42.0.0/16").returncode == 1


def test_a_namespace_is_named_by_a_process_or_a_path(host: Host, tmp_path: Path) -> None:
    namespace = host.node.namespace
    for name in (str(namespace.pid), str(namespace.net)):
        command = [*HITLESS, "watch", "--once", "--namespace", name]
        assert processes.run(command, check=False).returncode == 0
    with running(None, tmp_path / "log", "--namespace", str(namespace.pid)) as watch:
        watch.wait_for(e.RuleState)
        host.iptables("-t nat -F FLANNEL-POSTRTG")
        host.fill()
        watch.wait_for(e.Gap)
        assert watch.stop() == 0


def test_pod_networks_that_appear_later_are_taken_up(node: Node, tmp_path: Path) -> None:
    host = Host(node, Family.IPV4, Backend.NFT)
    with running(node, tmp_path / "log") as watch:
        watch.wait_for(e.Note)
        assert "no pod network is known" in str(watch.events[1])
        host.fill()
        watch.wait_for(e.RuleState)
        [state] = [event for event in watch.events if isinstance(event, e.RuleState)]
        assert (state.network, state.state) == ("10.42.0.0/16", "carried")
        watch.stop()


def test_legacy_tables_that_appear_later_are_taken_up(node: Node, tmp_path: Path) -> None:
    host = Host(node, Family.IPV4, Backend.LEGACY)
    with running(node, tmp_path / "log", "--network", "10.42.0.0/16", "--heartbeat", "0.05") as watch:
        watch.wait_for(e.RuleState)
        host.fill()
        watch.wait_for(e.RuleState, 2)
        host.iptables("-t nat -F FLANNEL-POSTRTG")
        watch.wait_for(e.RuleState, 3)  # nobody tells of it: a watch that is not run meanwhile would not see it
        host.fill()
        watch.wait_for(e.Gap, 2)
        watch.stop()
        states = [event.state for event in watch.events if isinstance(event, e.RuleState)]
    assert states == ["not_carried", "carried", "not_carried", "carried"]
    last = [event for event in watch.events if isinstance(event, e.Gap)][-1]
    assert last.opened_by is not None and last.opened_by.comm.startswith("iptables-legacy")


def test_foreign_changes_are_counted_and_evaluated_never(host: Host, tmp_path: Path) -> None:
    with running(host.node, tmp_path / "log", "--heartbeat", "0") as watch:
        watch.wait_for(e.RuleState)
        for number in range(20):
            assert host.node.nft(f"add table ip foreign{number}")
            assert host.node.nft(f"table ip foreign{number} {{\nchain c {{\ntcp dport 1 drop\n}}\n}}")
        watch.stop()
        events = watch.events
    assert not [event for event in events if isinstance(event, e.Change)]
    summary = events[-1]
    assert isinstance(summary, e.Summary)
    assert (summary.totals["commits"], summary.totals["evaluations"]) == (40, 1)


def test_all_changes_are_told_when_asked_for_and_marked(host: Host, tmp_path: Path) -> None:
    with running(host.node, tmp_path / "log", "--all") as watch:
        watch.wait_for(e.RuleState)
        assert host.node.nft("add table ip foreign")
        host.iptables("-t nat -A FLANNEL-POSTRTG -j RETURN")
        watch.wait_for(e.Change, 2)
        watch.stop()
        changes = [event for event in watch.events if isinstance(event, e.Change)]
    assert [(change.table, change.relevant, change.backend) for change in changes] == [
        ("foreign", False, "nftables"),
        ("nat", True, "nft"),
    ]


def test_gaps_during_and_after_a_burst_of_foreign_rules_are_found(host: Host, tmp_path: Path) -> None:
    burst = ["table ip foreign {"]
    for number in range(1000):
        burst += [f"chain c{number} {{", *(f"ip daddr 10.43.{number % 250}.{port} drop" for port in range(20)), "}"]
    with running(host.node, tmp_path / "log") as watch:
        watch.wait_for(e.RuleState)
        assert host.node.nft("\n".join([*burst, "}"]))
        for _ in range(3):
            host.iptables("-t nat -I POSTROUTING -j RETURN")
            host.iptables("-t nat -D POSTROUTING 1")
        watch.wait_for(e.Gap, 3)
        watch.stop()
        summary = watch.events[-1]
    assert isinstance(summary, e.Summary)
    assert (summary.totals["gaps"], summary.totals["lost_events"]) == (3, 0)


def test_the_view_for_people_is_plain_text_where_there_is_no_terminal(host: Host) -> None:
    done = processes.run(
        [*HITLESS, "watch", "--duration", "0.3"], namespace=host.node.namespace, environment={"NO_COLOR": "1"}
    )
    assert "\x1b" not in done.stdout
    assert "profile canal, pod networks 10.42.0.0/16 (from the rules)" in done.stdout
    assert "10.42.0.0/16 carried" in done.stdout
    assert "0 gaps" in done.stdout


def test_a_reader_that_goes_away_ends_the_watch(host: Host) -> None:
    command = [*HITLESS, "watch", "--json", "--heartbeat", "0.05"]
    process = processes.start(command, namespace=host.node.namespace, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(HANG) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--network", "10.42.0.9/32"], None),
        (["--network", "10.42.0.0"], "no prefix length"),
        (["--network", "10.42.0.1/16"], "such as 10.42.0.0/16"),
        (["--network", "pods"], "--network: 'pods' is not a network"),
        (["--family", "ipv4", "--network", "fd42::/48"], "not watched"),
        (["--profile", "/nowhere.toml"], "/nowhere.toml"),
        (["--namespace", "/run/netns/none"], "no namespace"),
        (["--backend", "ebpf"], "ebpf"),
        (["--duration", "0"], "--duration"),
        (["--duration", "5"], "--duration: is only for a watch that keeps running"),
        (["--all"], "--all: is only for a watch that keeps running"),
    ],
)
def test_wrong_input_is_said_in_one_message_and_ends_with_three(
    node: Node, arguments: Sequence[str], words: str | None
) -> None:
    done = once(node, *arguments)
    if words is None:  # a single address is a network of its own, and nothing carries it
        assert done.returncode == 1
        return
    assert done.returncode == 3
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_bad_profile_is_refused_with_its_place_before_anything_is_watched(node: Node, tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text('name = "mine"\nbackends = ["iptables"]\n')
    done = once(node, "--profile", str(profile))
    assert done.returncode == 3
    assert f"{profile}: line 2: backends" in done.stderr


def without_privileges(*command: str) -> subprocess.CompletedProcess[str]:
    """Run as this user, but without capabilities, as an ordinary user is.

    One is kept: with it a process of user 0 may map itself into a user namespace, as other users may without it.
    """
    dropped = ["setpriv", "--bounding-set", "-all,+setfcap", "--inh-caps", "-all", "--no-new-privs"]
    return processes.run([*dropped, *command], check=False)


def test_without_permission_one_sentence_says_what_helps() -> None:
    done = without_privileges(*HITLESS, "watch", "--once")
    assert done.returncode == 3
    assert "CAP_NET_ADMIN" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_ordinary_user_may_watch_a_namespace_of_his_own(tmp_path: Path) -> None:
    """With what that user may have: no large receive buffer by force, no real-time priority."""
    if without_privileges("unshare", "-Urn", "true").returncode != 0:
        missing("an ordinary user may not make user namespaces here")
    out = tmp_path / "log"
    watch = f"{' '.join(HITLESS)} watch --json --network 10.42.0.0/16"
    nft = "nft add table ip t && nft add chain ip t p '{ type nat hook postrouting priority 100; }'"
    script = (
        f"{watch} > {out} & until grep -q state {out}; do sleep 0.05; done; "
        f"{nft} && nft add rule ip t p ip saddr 10.42.0.0/16 masquerade && sleep 0.2; kill $!; wait $!"
    )
    done = without_privileges("unshare", "-Urn", "sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; {script}")
    events = [e.decode(line) for line in out.read_bytes().splitlines()]
    states = [event.state for event in events if isinstance(event, e.RuleState)]
    assert (done.returncode, states) == (0, ["not_carried", "carried"]), done.stderr
    assert len([event for event in events if isinstance(event, e.Gap)]) == 1


def test_watching_changes_nothing(host: Host) -> None:
    """Rules, sets, legacy tables and their modules: the same before and after."""

    def everything() -> list[str]:
        names = ("ip_tables_names", "ip6_tables_names")
        listed = [Path(f"/proc/{host.node.namespace.pid}/net/{name}") for name in names]
        tables = [each.read_text() if each.exists() else "" for each in listed]
        return [host.node.run("nft", "list", "ruleset"), host.node.run("ip", "-4", "addr"), *tables]

    before = everything()
    done = processes.run([*HITLESS, "watch", "--duration", "0.5"], namespace=host.node.namespace)
    assert done.returncode == 0
    assert everything() == before


def test_a_watch_that_was_stopped_says_how_late_it_came(host: Host, tmp_path: Path) -> None:
    """However short: a gap may be shorter still."""
    with running(host.node, tmp_path / "log", "--heartbeat", "0") as watch:
        watch.wait_for(e.RuleState)
        stat = Path(f"/proc/{watch.process.pid}/stat")
        watch.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: stat.read_text().rpartition(") ")[2].startswith("T"), "the stop")
        host.iptables("-t nat -F FLANNEL-POSTRTG")
        time.sleep(0.1)
        watch.process.send_signal(signal.SIGCONT)
        watch.wait_for(e.RuleState, 2)
        watch.stop()
        summary = watch.events[-1]
    assert isinstance(summary, e.Summary)
    assert 0.1e9 <= summary.totals["max_lag_ns"] < HANG * 1e9


def test_the_clock_of_the_environment_is_used(host: Host, tmp_path: Path) -> None:
    """Streams of one drill share an anchor: times are comparable to the nanosecond."""
    out = tmp_path / "log"
    anchor = 10**18
    with out.open("wb") as sink:
        process = processes.start(
            [*HITLESS, "watch", "--json", "--duration", "0.2"],
            namespace=host.node.namespace,
            stdout=sink,
            environment={"HITLESS_CLOCK_ANCHOR": str(anchor)},
        )
        assert process.wait(HANG) == 0
    times = [e.decode(line).t - anchor for line in out.read_bytes().splitlines()]
    assert all(0 < t <= time.monotonic_ns() for t in times)
