"""Every kind of traffic has an entry with everything about it, and is loaded when it is used."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import get_args, get_type_hints

import pytest

from hitless.model.event_fields import TRANSPORTS, Kind
from hitless.model.families import Address, Family
from hitless.probe.clients import ClientContext, KindClient, load
from hitless.probe.far_end_services import FarEndServer
from hitless.probe.kinds import DEFAULT_MIX, ENTRIES, KINDS, at_port, far_end_ports, ports_text

BASES = (1024, 7800, 65455)


def test_every_kind_of_the_event_schema_has_an_entry_and_a_transport() -> None:
    assert set(ENTRIES) == set(TRANSPORTS) == set(get_args(Kind))


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_kind_is_sent_and_answered(kind: Kind) -> None:
    entry = ENTRIES[kind]
    assert bool(entry.client) is (entry.share is not None)  # long-lived streams are opened by number
    assert bool(entry.answer) is bool(entry.served) is bool(entry.ports(7800))  # else the kernel answers
    if entry.client:
        assert get_type_hints(load(entry.client)) == {"context": ClientContext, "return": KindClient}
    if entry.answer:
        assert get_type_hints(load(entry.answer)) == {
            "server": FarEndServer,
            "address": Address,
            "port": int,
            "return": type(None),
        }
    if entry.permitted:
        assert get_type_hints(load(entry.permitted))["family"] is Family


@pytest.mark.parametrize("base", BASES)
def test_no_two_kinds_of_a_transport_share_a_port_and_each_is_known_by_it(base: int) -> None:
    used = Counter((TRANSPORTS[kind], port) for kind, entry in ENTRIES.items() for port in entry.ports(base))
    assert set(used.values()) == {1}
    assert all(base < port <= 65535 for _, port in used)
    for kind, entry in ENTRIES.items():
        assert {at_port(TRANSPORTS[kind], port, base) for port in entry.ports(base)} <= {kind}
    assert [at_port(protocol, 9, base) for protocol in ("tcp", "udp", "icmp")] == ["tcp", "udp", "icmp"]


def test_the_ports_in_a_far_ends_header_are_those_of_the_kinds() -> None:
    """The keys are those of earlier versions: programs read them."""
    assert far_end_ports(7800) == {"flow": [7801, 7802, 7803, 7804], "http": 7880, "echo": 7810}
    assert ports_text(far_end_ports(7800)) == "TCP and UDP 7801 to 7804, echo 7810, HTTP 7880"
    assert ports_text({"newer": 7805}) == "newer 7805"
    for entry in ENTRIES.values():
        assert bool(entry.port_key) is bool(entry.label) is bool(entry.ports(7800))


def test_a_mix_names_all_kinds_but_streams() -> None:
    assert set(KINDS) == set(DEFAULT_MIX) == set(get_args(Kind)) - {"stream"}
    assert sum(DEFAULT_MIX.values()) == 100


def loaded_by(command: str) -> list[str]:
    code = f"import hitless.cli.{command}, sys; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_a_prober_loads_no_far_end_and_a_far_end_no_prober() -> None:
    prober, far_end = loaded_by("probe"), loaded_by("farend")
    assert {"hitless.probe.prober"} == {*prober} & {"hitless.probe.prober", "hitless.probe.farend"}
    assert {"hitless.probe.farend"} == {*far_end} & {"hitless.probe.prober", "hitless.probe.farend"}
    assert {"hitless.probe.far_end_services", "hitless.kernel.capture"} & {*prober} == set()
    assert {"hitless.evidence.verdict", "hitless.evidence.figures"} & {*prober, *far_end} == set()


def test_a_prober_loads_no_kind_before_it_is_used() -> None:
    loaded = loaded_by("probe")
    assert "hitless.probe.kinds" in loaded
    assert {"hitless.probe.http", "hitless.probe.icmp", "hitless.probe.datagrams", "ssl"} & {*loaded} == set()
