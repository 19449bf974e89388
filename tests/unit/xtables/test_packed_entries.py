"""Entries are what the kernel gave, packed or not; command lines that only read are known for certain."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.kernel.xtables import packed_entries
from hitless.kernel.xtables.lockwatch import only_reads
from hitless.kernel.xtables.packed_entries import Entries


@given(st.binary(max_size=300), st.integers(0, 3000))
def test_entries_are_the_same_before_and_after_they_were_packed(piece: bytes, times: int) -> None:
    whole = piece * times
    entries = Entries(whole)
    entries._since -= 10
    assert entries.rest() is (len(whole) >= 1 << 18)
    assert (entries.size, entries.whole) == (len(whole), whole)


def test_what_was_used_a_moment_ago_stays_and_what_rests_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(packed_entries, "time", SimpleNamespace(monotonic=lambda: now[0]))
    entries = Entries(bytes(4 << 20))
    assert not entries.rest()
    now[0] += 2
    assert entries.rest() and not entries.rest()
    assert entries._whole is None and len(entries._packed) < 64 << 10
    assert entries.whole == bytes(4 << 20)
    assert not entries.rest()
    now[0] += 2
    assert entries.rest()


READS = [
    "/usr/sbin/iptables-legacy -t nat -C FLANNEL-POSTRTG -s 10.42.0.0/16 -m comment --comment flanneld masq -j RETURN",
    "iptables -w -t mangle -S KUBE-PROXY-CANARY",
    "ip6tables-legacy --wait --list",
    "/usr/sbin/iptables-legacy-save -t nat",
]
MAY_WRITE = [
    "",
    "kube-proxy --config /var/lib/config",
    "iptables-legacy",
    "iptables-legacy-restore --noflush",
    "iptables-legacy -t nat -F FLANNEL-POSTRTG",
    "iptables-legacy -t nat -AFORWARD -j DROP",
    "iptables-legacy -A FORWARD -m comment --comment -C -j DROP",
    "iptables-legacy --appen FORWARD -m comment --comment --check -j DROP",
    "iptables-legacy -L -Z",
    "iptables-legacy -C FORWARD -m comment --comment " + "x" * 300,
    "sh -c iptables -C FORWARD -j DROP; iptables -F",
]


@pytest.mark.parametrize("argv", READS)
def test_a_check_or_a_listing_changes_nothing(argv: str) -> None:
    assert only_reads(argv)


@pytest.mark.parametrize("argv", MAY_WRITE)
def test_everything_else_may_have_written(argv: str) -> None:
    assert not only_reads(argv)
