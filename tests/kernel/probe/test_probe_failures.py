"""Known damage is found, exactly, and called by its name."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable

import pytest
from tests.kernel.probe.probe_world import CLOCK, PATIENT, World

from hitless.kernel import processes
from hitless.model import events as e
from hitless.model.families import Family

pytestmark = pytest.mark.kernel

DROP_SOME = """
table inet damage {
  set dropped { typeof meta nfproto . meta l4proto . th sport . th dport; flags dynamic; size 65535; }
  chain forward { type filter hook forward priority -10;
    iifname != "eth0" meta l4proto { tcp, udp } th sport & 15 == 3 \
      add @dropped { meta nfproto . meta l4proto . th sport . th dport } drop
  }
}
"""

DROP_FIRST = """
table inet damage {
  set ports { typeof meta nfproto . meta l4proto . th sport; flags dynamic; size 65535; }
  chain forward { type filter hook forward priority -10;
    iifname "eth0" accept
    meta nfproto . meta l4proto . th sport @ports accept
    meta l4proto { tcp, udp } add @ports { meta nfproto . meta l4proto . th sport } drop
  }
}
"""

DROP_ALL = """
table inet damage {
  chain forward { type filter hook forward priority -10; iifname != "eth0" drop; }
}
"""


def dropped_flows(world: World) -> set[tuple[str | int, ...]]:
    """Family, kind and ports: one number of a port may well be used by several kinds and families at once."""
    listing = processes.run(["nft", "-j", "list", "set", "inet", "damage", "dropped"], namespace=world.node).stdout
    (found,) = [item["set"] for item in json.loads(listing)["nftables"] if "set" in item]
    return {tuple(element["concat"]) for element in found.get("elem", ())}


def test_exactly_the_flows_that_were_dropped_are_lost(world: World) -> None:
    world.far_end()
    world.nft(DROP_SOME)
    probe = world.punctual(
        *("--mix", "tcp=2,udp=1", "--rate", "500", "--count", "600", "--timeout", "1.5"),
        before=lambda: world.nft("flush set inet damage dropped"),
    )
    assert probe.code == 1
    losses = probe.of(e.Loss)
    wanted = dropped_flows(world)
    assert len(wanted) > 10
    assert {(loss.family, loss.kind, loss.sport, loss.dport) for loss in losses} == wanted
    assert len(losses) == len(wanted) == sum(one.lost for one in probe.of(e.Attempts))
    assert {loss.cause for loss in losses} == {"timeout"}
    assert {loss.kind for loss in losses} == {"tcp", "udp"}
    for loss in losses:
        assert loss.src == world.pod_address(Family(loss.family))
        assert loss.dst == world.address(Family(loss.family))
        assert loss.planned <= loss.t < loss.end
        assert loss.end - loss.t >= 1_500_000_000
        assert loss.tries == (3 if loss.kind == "udp" else 2)  # at 0, 0.25 and 0.75 s; SYNs at 0, 1 and 2 or 3 s


def test_what_is_answered_after_a_retry_is_delayed_and_not_lost(world: World) -> None:
    far_end = world.far_end()
    world.nft(DROP_FIRST)
    words = ("--mix", "tcp=1,udp=1", "--rate", "200", "--count", "100", *PATIENT)
    probe = world.punctual(*words, before=lambda: world.nft("flush set inet damage ports"))
    assert probe.code == 0
    far_end.end()
    late = max(beat.max_lag_ns for beat in far_end.of(e.Heartbeat))
    attempts = probe.of(e.Attempts)
    assert sum(one.sent for one in attempts) == 100
    assert all(one.delayed == one.ok == one.sent for one in attempts)
    fastest = {kind: min(one.latency_p50_ns for one in attempts if one.kind == kind) for kind in ("tcp", "udp")}
    assert fastest["tcp"] > 1_000_000_000
    assert 250_000_000 < fastest["udp"] < 1_000_000_000 + late


@pytest.mark.parametrize("scheme", ["tcp", "udp", "http"])
@pytest.mark.parametrize("family", list(Family))
def test_a_refusal_is_called_refused(world: World, scheme: str, family: Family) -> None:
    """Nobody listens: the far end's kernel says so (at most a few ICMP errors in a row, so few attempts)."""
    probe = world.punctual("--count", "3", "--rate", "20", targets=[world.url(family, scheme, ":9999")])
    assert probe.code == 1
    losses = probe.of(e.Loss)
    assert [loss.cause for loss in losses] == ["refused"] * 3
    assert all(loss.end - loss.t < 1_000_000_000 for loss in losses)


@pytest.mark.parametrize("family", list(Family))
def test_what_the_network_calls_unreachable_is_called_so(world: World, family: Family) -> None:
    """Few attempts: a kernel sends six such errors in a row to one address, and then one a second."""
    world.far_end()
    kind = "icmp type host-unreachable" if family is Family.IPV4 else "icmpv6 type addr-unreachable"
    table = "ip" if family is Family.IPV4 else "ip6"
    world.nft(
        f"table {table} damage {{ chain forward {{ type filter hook forward priority -10; "
        f'iifname != "eth0" reject with {kind}; }}; }}'
    )
    words = ("--mix", "tcp=1,udp=1,icmp=1", "--count", "3", "--rate", "20", "--timeout", "2")
    probe = world.punctual(*words, targets=[world.url(family)])
    assert probe.code == 1
    assert {loss.kind: loss.cause for loss in probe.of(e.Loss)} == dict.fromkeys(("tcp", "udp", "icmp"), "unreachable")


def test_a_pod_without_a_route_is_unreachable_and_probed_on(world: World) -> None:
    world.far_end()
    probe = world.probe("--rate", "100", targets=[world.url(Family.IPV4)])
    probe.wait_beats()
    processes.run(["ip", "route", "del", "default"], namespace=world.pod)
    probe.wait_losses(1, "unreachable")
    processes.run(["ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0"], namespace=world.pod)
    known = CLOCK.now() + 1_500_000_000  # by then: the prober asks for its source once a second
    probe.wait_for(lambda events: any(isinstance(one, e.Attempts) and one.t > known for one in events))
    assert probe.end() == 1
    assert {loss.cause for loss in probe.of(e.Loss)} == {"unreachable"}
    assert not any(one.lost for one in probe.of(e.Attempts) if one.t > known)


def test_a_leak_is_seen_at_the_far_end_with_its_five_tuple_and_time(world: World) -> None:
    far_end = world.far_end()
    world.stop_masquerade()
    probe = world.punctual(
        "--mix", "tcp=2,udp=2,icmp=2,http=1", "--rate", "100", "--count", "70", "--timeout", "0.4", "--streams", "2"
    )
    assert probe.code == 1
    far_end.end()
    leaks = {
        (one.kind, one.family, one.src, one.sport, one.dst, one.dport): one.t for one in reversed(far_end.of(e.Leak))
    }
    losses = probe.of(e.Loss)
    assert {loss.kind for loss in losses} == {"tcp", "udp", "icmp", "http", "stream"}
    for loss in losses:
        seen = leaks[loss.kind, loss.family, loss.src, loss.sport, loss.dst, loss.dport]
        # the kernel stamps packets by the wall clock: 1 ms for its difference from ours
        assert -1_000_000 <= seen - loss.t < 300_000_000
    assert far_end.totals["leaks"] >= len(losses)


def test_leaks_are_counted_beyond_those_that_are_written(world: World) -> None:
    far_end = world.far_end("--leak-limit", "5")
    world.stop_masquerade()
    probe = world.probe("--mix", "udp=1", "--count", "30", "--rate", "200", "--timeout", "0.1")
    probe.end(None)
    far_end.end()
    assert len(far_end.of(e.Leak)) == 5
    assert far_end.totals["leaks"] == far_end.totals["leaks_udp"] >= probe.totals["sent"] > 5


@pytest.mark.parametrize("kind", ["tcp", "udp", "icmp"])
def test_a_poisoned_flow_is_watched_until_it_works_again(world: World, kind: str) -> None:
    """Begun in a gap, dead while its conntrack entry lives, alive once that is deleted: kernel fact 2."""
    world.far_end()
    probe = world.probe("--mix", f"{kind}=1", "--rate", "100", "--timeout", "0.5")
    probe.wait_beats()
    world.stop_masquerade()
    probe.wait_losses(16)
    world.masquerade()
    probe.wait_beats(2)
    assert probe.of(e.Recovery) == []  # the rules are back for a second, the flows are still dead
    heal(world)
    probe.wait_for(lambda events: sum(isinstance(one, e.Recovery) for one in events) >= 8)
    assert probe.end() == 1
    recoveries = [one for one in probe.of(e.Recovery) if one.recovered]
    flows = {(loss.sport, loss.dst, loss.dport): loss for loss in probe.of(e.Loss)}
    assert len(recoveries) >= 8
    for one in recoveries:
        loss = flows[one.sport, one.dst, one.dport]
        assert one.begin == loss.t
        assert one.duration_ns > 1_000_000_000


def heal(world: World) -> None:
    """Delete the entries that have no translation: those whose answers would go to the pod's own address."""
    for family in Family:
        words = ["conntrack", "-D", "-f", family.value, "--reply-dst", world.pod_address(family)]
        processes.run(words, namespace=world.node)


def test_a_flow_that_stays_broken_is_reported_at_the_end(world: World) -> None:
    world.far_end()
    world.nft(DROP_ALL)
    probe = world.probe("--mix", "tcp=1,udp=1,icmp=1", "--rate", "200", "--timeout", "0.3")
    every = {(kind, family.value) for kind in ("tcp", "udp", "icmp") for family in Family}
    probe.wait_for(lambda events: lost_in_time(events) == every)
    assert probe.end() == 1
    recoveries = probe.of(e.Recovery)
    assert len(recoveries) == probe.totals["not_recovered"] >= len(every)
    assert len(recoveries) <= 64
    assert not any(one.recovered for one in recoveries)
    assert {(one.kind, one.family) for one in recoveries} == every


def lost_in_time(events: Iterable[e.Event]) -> set[tuple[str, str]]:
    """Kinds and families of losses that were seen by a prober that was awake."""
    return {(one.kind, one.family) for one in events if isinstance(one, e.Loss) and one.cause == "timeout"}


@pytest.mark.parametrize("seconds", [1.0, 4.0])
def test_a_prober_that_was_stopped_skips_and_counts_and_loses_nothing(world: World, seconds: float) -> None:
    """Shorter and longer than the timeout: neither is an outage."""
    world.far_end()
    probe = world.probe("--rate", "500", "--timeout", "3.2")
    probe.wait_beats()
    probe.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    probe.process.send_signal(signal.SIGCONT)
    probe.wait_beats()
    assert probe.end() in (0, 2)
    assert probe.of(e.Loss) == []
    assert probe.totals["skipped_late"] >= 500 * (seconds - 0.2)
    assert max(beat.max_lag_ns for beat in probe.of(e.Heartbeat)) > seconds * 0.9e9
    assert sum(one.sent for one in probe.of(e.Attempts)) == probe.totals["sent"]


def test_losses_while_the_prober_was_stopped_are_starved_and_prove_nothing(world: World) -> None:
    world.far_end()
    world.nft(DROP_ALL)
    probe = world.probe("--mix", "udp=1,tcp=1,icmp=1", "--rate", "100", "--timeout", "3", "--count", "30")
    probe.wait_for(bool)
    time.sleep(0.5)
    probe.process.send_signal(signal.SIGSTOP)
    time.sleep(1.8)  # more than half of the timeout
    probe.process.send_signal(signal.SIGCONT)
    assert probe.end(None) == 2
    losses = probe.of(e.Loss)
    assert len(losses) == probe.totals["sent"] > 0
    assert {loss.cause for loss in losses} == {"starved"}


def test_a_far_end_that_is_killed_is_seen_in_every_kind(world: World) -> None:
    far_end = world.far_end()
    probe = world.probe("--mix", "tcp=1,udp=1,http=1", "--rate", "100", "--streams", "2")
    probe.wait_beats()
    far_end.end(signal.SIGKILL)
    probe.wait_for(lambda events: sum(isinstance(one, e.StreamBreak) for one in events) >= 2)
    probe.wait_for(lambda events: {"tcp", "udp", "http"} <= refused(events))
    assert probe.end() == 1
    assert far_end.of(e.Summary) == []  # its stream was cut off


def refused(events: Iterable[e.Event]) -> set[str]:
    return {one.kind for one in events if isinstance(one, e.Loss) and one.cause == "refused"}


def test_when_the_control_fails_too_it_is_the_far_end(world: World) -> None:
    world.far_end()
    world.nft(DROP_ALL)
    nobody = f"tcp://{world.cluster.nodes[0].addresses[Family.IPV4]}:9"
    probe = world.probe("--mix", "udp=1", "--rate", "20", "--timeout", "1", "--control", nobody)
    probe.wait_losses(20, "far_end_down")
    assert probe.end() == 1
    own = [loss for loss in probe.of(e.Loss) if not loss.stream]
    controls = [loss for loss in probe.of(e.Loss) if loss.stream == "control"]
    assert {loss.cause for loss in controls} == {"refused"}
    assert {loss.cause for loss in own} <= {"far_end_down", "starved"}
    assert sum(one.sent for one in probe.of(e.Attempts) if not one.stream) == probe.totals["sent"]
    assert sum(one.lost for one in probe.of(e.Attempts) if one.stream) == probe.totals["control_lost"] == len(controls)


def test_a_control_that_answers_shows_that_the_network_works(world: World) -> None:
    world.far_end()
    world.nft(DROP_ALL)
    node = f"icmp://{world.cluster.nodes[0].addresses[Family.IPV4]}"
    probe = world.probe("--mix", "udp=1", "--rate", "20", "--timeout", "1", "--control", node)
    probe.wait_losses(20)
    assert probe.end() == 1
    assert {loss.cause for loss in probe.of(e.Loss)} <= {"timeout", "starved"}


def test_a_stream_outlives_a_gap_and_breaks_when_it_is_cut_or_stalled(world: World) -> None:
    world.far_end()
    probe = world.probe("--streams", "2", "--mix", "tcp=1", "--rate", "1", "--timeout", "3.2")
    probe.wait_for(lambda events: opened(events) == 2)
    world.stop_masquerade()
    time.sleep(0.5)
    world.masquerade()
    probe.wait_beats()
    assert probe.of(e.StreamBreak) == []  # their binding is in conntrack
    world.nft(DROP_ALL)
    probe.wait_for(lambda events: sum(isinstance(one, e.StreamBreak) for one in events) >= 2)
    assert all(one.stalled_ns >= 3_200_000_000 and one.detail == "stalled" for one in probe.of(e.StreamBreak))
    world.nft("delete table inet damage")
    probe.wait_for(lambda events: opened(events) == 4)  # anew
    assert probe.end() == 1


def opened(events: Iterable[e.Event]) -> int:
    return sum(one.ok for one in events if isinstance(one, e.Attempts) and one.kind == "stream")


def test_running_out_of_descriptors_is_counted_and_not_fatal(world: World) -> None:
    world.far_end()
    world.nft(DROP_ALL)
    probe = world.probe("--mix", "udp=1", "--rate", "1000", "--timeout", "1")
    processes.run(["prlimit", f"--pid={probe.process.pid}", "--nofile=280:280"])
    probe.wait_for(lambda events: any(isinstance(one, e.Note) and "ulimit -n" in one.text for one in events))
    probe.wait_losses(100)
    assert probe.end() == 1
    assert probe.totals["skipped_descriptors"] > 0
    assert len(probe.of(e.Loss)) == probe.totals["sent"] > 0
