"""Where nothing is wrong, everything is answered, in both families and in every kind."""

from __future__ import annotations

import pytest
from tests.kernel.probe.probe_world import PATIENT, World

from hitless.model import events as e
from hitless.model.families import Family

pytestmark = pytest.mark.kernel

KINDS = ("tcp", "udp", "icmp", "http")


def test_every_kind_is_answered_in_both_families(world: World) -> None:
    far_end = world.far_end()
    words = ("--mix", "tcp=4,udp=3,icmp=2,http=1", "--rate", "400", "--count", "800", "--streams", "4", *PATIENT)
    probe = world.probe(*words)
    assert probe.end(None) == probe.good
    assert far_end.end() == 0
    attempts = probe.of(e.Attempts)
    for kind in KINDS:
        for family in Family:
            buckets = [one for one in attempts if (one.kind, one.family) == (kind, family)]
            assert sum(one.ok for one in buckets) > 0, (kind, family)
    assert all(one.ok == one.sent for one in attempts)
    assert probe.totals["sent"] + probe.totals["skipped_late"] == 800
    assert probe.totals["stream_ok"] == 4
    assert probe.totals["stream_messages"] > 4
    assert "stream_breaks" not in probe.totals
    # the far end saw the node and never the pod
    assert "untranslated" not in probe.totals
    assert far_end.of(e.Leak) == []
    assert far_end.totals["udp"] >= probe.totals["udp_ok"]
    assert far_end.totals["tcp"] >= probe.totals["tcp_ok"]


def test_the_stream_begins_with_a_header_and_ends_with_a_summary(world: World) -> None:
    far_end = world.far_end()
    probe = world.punctual("--count", "50", *PATIENT)
    assert probe.code == 0
    far_end.end()
    for running in (probe, far_end):
        assert isinstance(running.events[0], e.Header)
        assert isinstance(running.events[-1], e.Summary)
        assert running.rest == b""
    assert "tcp 198.51.100.1" in probe.of(e.Header)[0].config["endpoints"]


def test_no_attempt_shares_its_five_tuple(world: World) -> None:
    """The far end's packet socket sees every first packet: without NAT, each comes from a port of its own."""
    world.stop_masquerade()
    far_end = world.far_end()
    probe = world.probe("--mix", "tcp=1,udp=1", "--rate", "1000", "--count", "1000", "--timeout", "0.2")
    assert probe.end(None) == (1 if any(loss.cause != "starved" for loss in probe.of(e.Loss)) else 2)
    far_end.end()
    leaks = far_end.of(e.Leak)
    flows = {(one.kind, one.family, one.src, one.sport, one.dst, one.dport) for one in leaks}
    assert len(flows) == probe.totals["sent"]
    assert {one.dport for one in leaks} == {7801, 7802, 7803, 7804}


@pytest.mark.parametrize("scheme", ["tcp", "udp", "icmp", "http"])
@pytest.mark.parametrize("family", list(Family))
def test_a_single_endpoint_can_be_probed_by_its_url(world: World, scheme: str, family: Family) -> None:
    far_end = world.far_end()
    rest = {"tcp": ":7880", "udp": ":7802", "icmp": "", "http": ":7880/health?x=1"}[scheme]
    probe = world.punctual("--count", "5", "--rate", "50", *PATIENT, targets=[world.url(family, scheme, rest)])
    assert probe.code == 0
    assert probe.totals[f"{scheme}_ok"] == probe.totals["sent"] == 5
    far_end.end()


def test_probing_ends_when_its_time_is_over_and_on_a_signal(world: World) -> None:
    far_end = world.far_end()
    timed = world.punctual("--duration", "0.5", *PATIENT)
    assert timed.code == 0
    stopped = world.probe(*PATIENT)
    stopped.wait_for(lambda events: any(isinstance(one, e.Attempts) for one in events))
    assert stopped.end() == stopped.good
    for probe in (timed, stopped):
        assert probe.totals["abandoned"] == 0
        assert sum(one.sent for one in probe.of(e.Attempts)) == probe.totals["sent"] > 0
    far_end.end()


def test_a_probe_whose_reader_goes_away_ends(world: World) -> None:
    world.far_end()
    probe = world.probe()
    probe.wait_for(bool)
    assert probe.process.stdout is not None
    probe.process.stdout.close()
    probe.process.wait(timeout=60)
