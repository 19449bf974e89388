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
from hitless.probe.kinds import DEFAULT_MIX, ENTRIES, KINDS, at_port

BASES = (1024, 7800, 65455)


def test_every_kind_of_the_event_schema_has_an_entry_and_a_transport() -> None:
    assert set(ENTRIES) == set(TRANSPORTS) == set(get_args(Kind))


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_kind_is_sent_and_answered(kind: Kind) -> None:
    entry = ENTRIES[kind]
    assert bool(entry.client) is (entry.share is not None)  # long-lived streams are opened by number
    assert bool(entry.answer) is bool(entry.served) is bool(entry.ports(7800))  # else the kernel answers
    if entry.client:
        assert get_type_hints(load(entry.client)) == {"setting": ClientContext, "return": KindClient}
    if entry.answer:
        assert get_type_hints(load(entry.answer)) == {
            "ground": FarEndServer,
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


def test_a_mix_names_all_kinds_but_streams() -> None:
    assert set(KINDS) == set(DEFAULT_MIX) == set(get_args(Kind)) - {"stream"}
    assert sum(DEFAULT_MIX.values()) == 100


def test_a_prober_loads_no_kind_before_it_is_used() -> None:
    code = "import hitless.cli.probe, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "hitless.probe.kinds" in loaded
    assert {"hitless.probe.http", "hitless.probe.icmp", "hitless.probe.datagrams", "ssl"} & {*loaded} == set()
