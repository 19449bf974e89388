"""How the real cluster's part about the agent in flanneld's place counts: connections by interval, changes by kind."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from tools.real_cluster.changes import Changes
from tools.real_cluster.traffic import Count, TrafficReport

SECOND = 10**9


def attempts(at: float, sent: int, lost: int = 0) -> dict[str, Any]:
    return {"type": "attempts", "t": int(at * SECOND), "sent": sent, "lost": lost}


def test_connections_count_where_they_were_begun_and_broken_streams_are_lost() -> None:
    events = [
        attempts(9.9, 20, 3),
        attempts(10.0, 20),
        attempts(11.0, 20, 1),
        {"type": "loss", "t": 11 * SECOND, "cause": "timeout"},
        {"type": "stream_break", "t": 12 * SECOND},
        attempts(13.0, 20, 5),
    ]
    beats = [{"type": "heartbeat", "t": at * SECOND, "max_lag_ns": late} for at, late in ((9, 9e9), (11, 2.5e9))]
    told = TrafficReport({"pods": events, "outside": [attempts(10.5, 7)]}, beats)
    assert told.between(10, 13) == {"pods": Count(40, 2, ("stream", "timeout")), "outside": Count(7)}
    assert (told.late(10, 13), told.late(12, 13)) == (2.5, 0)


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("Deleted 10.88.1.0/24 via 10.88.1.0 dev flannel.1 onlink", True),
        ("10.88.1.0 dev flannel.1 lladdr 82:ea:ec:69:0e:4e PERMANENT", True),
        ("blackhole 10.88.0.0/24", True),
        ("add rule ip nat FLANNEL-POSTRTG ip saddr 10.88.0.0/16 counter return", True),
        ("Deleted ff02::1:ff69:e4e dev flannel.1 lladdr 33:33:ff:69:0e:4e NOARP", False),
        ("10.200.0.2 dev eth0 lladdr 6a:00:00:00:00:01 STALE", False),
        ("add rule ip nat KUBE-SERVICES ip daddr 10.96.0.1 counter", False),
    ],
)
def test_changes_of_flannels_objects_count_and_the_kernels_own_do_not(line: str, counts: bool) -> None:
    found = Changes()
    with subprocess.Popen([sys.executable, "-c", f"print({line!r})"], stdout=subprocess.PIPE, text=True) as process:
        found.read("node1", process)
    assert found.between(0, 2**40) == ([f"node1: {line}"] if counts else [])
