"""What a node's own kernel and system tell: connection table, forwarding, clock, rights, backends.

Promise: files below /proc and one system call (adjtimex, read only); nothing is loaded, made or changed. Paths are
parameters, so that tests need no other machine.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

from hitless.doctor.findings import DoctorFinding
from hitless.kernel import files, machine, privileges
from hitless.model import reading
from hitless.model.families import Family
from hitless.model.rules import Ruleset

__all__ = ["backends", "clock", "connections", "forwarding", "rights", "system"]

_FULL, _FILLING = 0.95, 0.8
_UNSYNCHRONIZED, _STATUS_OFFSET = 0x0040, 40  # STA_UNSYNC; struct timex on 64-bit machines, timex(3)
_TIMEX_BYTES = 208


def system() -> DoctorFinding:
    """The machine, for the record."""
    here = machine.whole()
    tools = ", ".join(
        f"{name} {version}" if version else f"no {name}"
        for name, version in (("iptables", here.iptables), ("nft", here.nft))
    )
    return DoctorFinding(
        "system", "this machine", "ok", f"{here.os or 'Linux'}, kernel {here.kernel}, {here.cpus} CPUs; {tools}"
    )


def rights() -> DoctorFinding:
    """What this process may read."""
    if privileges.net_admin():
        return DoctorFinding("rights", "permissions", "ok", "may read rules, sockets and other processes")
    return DoctorFinding(
        "rights",
        "permissions",
        "unknown",
        "not root: the rules cannot be read, so that most of what follows is unknown",
        "sudo hitless doctor",
        essential=True,
    )


def connections(net: Path = Path("/proc/sys/net/netfilter")) -> DoctorFinding:
    """How full the connection table is: a full one drops new connections, with or without a restart."""
    title = "connection table"
    count, most = (reading.whole_of(_text(net / name).strip()) for name in ("nf_conntrack_count", "nf_conntrack_max"))
    if count is None or not most:
        return DoctorFinding(
            "connections", title, "note", "connection tracking is not in use here, so nothing is masqueraded"
        )
    share = count / most
    text = f"{count:,} of {most:,} entries ({share:.0%})"
    if share >= _FULL:
        text += ": full, new connections are dropped whatever the rules say"
        return DoctorFinding("connections", title, "problem", text, "sysctl -w net.netfilter.nf_conntrack_max=…")
    if share >= _FILLING:
        return DoctorFinding("connections", title, "note", f"{text}: filling up")
    return DoctorFinding("connections", title, "ok", text)


def forwarding(families: tuple[Family, ...], net: Path = Path("/proc/sys/net")) -> DoctorFinding:
    """Whether the node forwards at all: without it no rule matters."""
    files = {Family.IPV4: net / "ipv4/ip_forward", Family.IPV6: net / "ipv6/conf/all/forwarding"}
    off = [family for family in families if _text(files[family]).strip() == "0"]
    if not families:
        return DoctorFinding("forwarding", "forwarding", "ok", "not asked: no pod network is known")
    if off:
        names = " and ".join(f"{'IPv4' if one is Family.IPV4 else 'IPv6'}" for one in off)
        key = "net.ipv4.ip_forward" if Family.IPV4 in off else "net.ipv6.conf.all.forwarding"
        text = f"{names} forwarding is off: pods reach nothing outside of the node"
        return DoctorFinding("forwarding", "forwarding", "problem", text, f"sysctl -w {key}=1")
    return DoctorFinding("forwarding", "forwarding", "ok", "on for the pods' families")


def clock() -> DoctorFinding:
    """Whether the clock is kept by somebody: records of several nodes are compared by their times."""
    try:
        timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: nothing is set
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
        status = int.from_bytes(timex.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], "little")
    except (OSError, AttributeError):
        state, status = -1, 0
    if state < 0:
        return DoctorFinding(
            "clock", "clock", "unknown", "the kernel does not report whether the clock is synchronized"
        )
    if status & _UNSYNCHRONIZED:
        text = "not synchronized: times of several nodes cannot be compared (a drill measures and corrects this)"
        return DoctorFinding("clock", "clock", "note", text, "timedatectl status")
    return DoctorFinding("clock", "clock", "ok", "synchronized")


def backends(nft: Ruleset, legacy: Ruleset) -> DoctorFinding:
    """Which kinds of rules stand here: a packet passes all of them, and tools of one do not show the other's."""
    kinds: Mapping[str, list[str]] = {
        "iptables-nft": [one.name for one in nft.tables if one.iptables and _rules(one.chains)],
        "nftables": [one.name for one in nft.tables if not one.iptables and _rules(one.chains)],
        "iptables-legacy": [one.name for one in legacy.tables if _rules(one.chains)],
    }
    there = {kind: sorted(set(names)) for kind, names in kinds.items() if names}
    text = "; ".join(f"{kind} ({', '.join(names)})" for kind, names in there.items()) or "no rules at all"
    if "iptables-nft" in there and "iptables-legacy" in there:
        text += ": both iptables backends hold rules. Every packet passes both, and each tool shows its own only"
        return DoctorFinding("backends", "rule backends", "note", text, "iptables-legacy-save; iptables-nft-save")
    return DoctorFinding("backends", "rule backends", "ok", text)


def _rules(chains: Mapping[str, object]) -> bool:
    return any(getattr(chain, "rules", ()) for chain in chains.values())


def _text(path: Path) -> str:
    try:
        return files.read(path).decode("utf-8", "replace")
    except OSError:
        return ""
