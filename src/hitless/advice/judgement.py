"""Advice: what a restart costs with this flannel, and what helps. Pure.

Problem: an operator asks "does my release have this, and where is it fixed?". Promise: the answer is a function of
the flannel version (found in the tables, or given), with its reason and the upstream issue; an unknown version is
answered "unknown" with the rule that decides it, never with a guess from its neighbours. The costs are measurements
(replayed command sequences on a real kernel), the rules come from flannel's sources; both are named in each finding.
It never reads a machine: ``nodes`` and ``clusters`` do. Next stage: ``hitless.cli.advise``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from hitless.advice.releases import ReleaseTable, Shipped
from hitless.advice.remedies import Remedy, Setting, Status, Workload, default_workload, remedies
from hitless.model.versions import Build, Flannel, Release

__all__ = ["Advice", "AdviceFinding", "Upgrade", "advise"]

_REMOVES_FROM, _REMOVES_TO = (0, 25, 0), (0, 26, 7)
_FIXED = (0, 27, 0)
_CHAIN_FROM = (0, 20, 1)  # the release that moved the rules to FLANNEL-POSTRTG; older ones were not studied
_NEWEST_READ = (0, 28, 9)  # the newest release whose sources were read

RKE2_ISSUE = "https://github.com/rancher/rke2/issues/8151"
FLANNEL_ISSUE = "https://github.com/flannel-io/flannel/issues/2237"
FLANNEL_FIX = "https://github.com/flannel-io/flannel/pull/2239"

RULE = (
    "flannel 0.25.0-0.26.7 removes its rules when it stops; 0.27.0 and later keeps them, but flushes and rebuilds them "
    "when it starts (every release read, up to 0.28.9)"
)


class AdviceFinding(msgspec.Struct, frozen=True):
    """Something that a restart does: ``cost`` in time, ``why`` in flannel's behaviour, and the upstream threads."""

    id: str
    title: str
    cost: str
    why: str
    issues: tuple[str, ...] = ()


class Upgrade(msgspec.Struct, frozen=True):
    """The nearest release of the same minor line that keeps the rules at exit.

    ``none``: the line has ended without one. ``not-known``: none among the known releases. ``here``: this one does.
    ``ended``: the last day of Kubernetes' support of the line, if it gets no more releases; empty if it does.
    """

    state: Literal["here", "available", "none", "not-known", "unknown"]
    version: str = ""
    newest_known: str = ""
    text: str = ""
    ended: str = ""


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for one version. ``schema`` is the version of this form; ``nodes``: those of a cluster that run it."""

    schema: int = 1
    status: Status
    subject: str
    nodes: tuple[str, ...] = ()
    setting: Setting
    flannel: str = ""
    certainty: Literal["exact", "at-least", "running", "given", "unknown"] = "unknown"
    source: str = ""
    summary: str
    rule: str = RULE
    findings: tuple[AdviceFinding, ...] = ()
    upgrade: Upgrade
    remedies: tuple[Remedy, ...] = ()


def advise(
    table: ReleaseTable,
    release: Release | Build | None,
    *,
    running: Flannel | None = None,
    running_source: str = "",
    setting: Setting | None = None,
    workload: Workload | None = None,
    nodes: tuple[str, ...] = (),
) -> Advice:
    """The advice for a release, for a flannel that was seen running (which wins over the table), or for both.

    ``workload``: the DaemonSet that was found; without it, the one that the distribution installs.
    """
    if release is None and running is None:
        raise ValueError("advise needs a release or a flannel version")
    shipped = table.find(release) if isinstance(release, Release) else None
    where: Setting = setting or (release.product if release is not None and release.product else "flannel")
    found = workload or default_workload(where)
    flannel = running or (shipped.flannel if shipped else None)
    subject = str(release) if release is not None else f"flannel {running}"
    if running is not None:
        certainty: Literal["exact", "at-least", "running", "given", "unknown"]
        certainty = "running" if running_source else "given"
    else:
        certainty = shipped.certainty if shipped else "unknown"
    status = _status(flannel, lower_bound=certainty == "at-least")
    fixed = [one for one in table.images() if one.number[:2] == _FIXED[:2]]
    return Advice(
        status=status,
        subject=subject,
        nodes=nodes,
        setting=where,
        flannel=str(flannel) if flannel else "",
        certainty=certainty,
        source=running_source if running is not None else (shipped.source if shipped else ""),
        summary=_summary(table, release, flannel, status, certainty, found),
        findings=_findings(flannel, status, where, found),
        upgrade=_upgrade(table, release, flannel, status),
        remedies=remedies(
            where,
            status,
            found,
            flannel=flannel,
            hardened=fixed[-1] if fixed else None,
            chart_build=shipped.chart_build if shipped else 0,
        ),
    )


def _status(flannel: Flannel | None, *, lower_bound: bool) -> Status:
    """A lower bound decides only where everything above it behaves the same."""
    if flannel is None or flannel.number < _CHAIN_FROM:
        return "unknown"
    if flannel.number >= _FIXED:
        return "window" if flannel.number <= _NEWEST_READ or lower_bound else "unknown"
    if lower_bound:
        return "unknown"
    return "affected" if _REMOVES_FROM <= flannel.number <= _REMOVES_TO else "window"


def _summary(
    table: ReleaseTable,
    release: Release | Build | None,
    flannel: Flannel | None,
    status: Status,
    certainty: str,
    workload: Workload,
) -> str:
    match status:
        case "affected":
            return "pods on a node lose new connections to the outside from flannel's stop until it is up again"
        case "window" if workload.nftables and flannel is not None and flannel.number >= _FIXED:
            return (
                "flannel runs in nftables mode and replaces its table in one transaction: a restart costs little or "
                "nothing, but rules that another program removes stay away"
            )
        case "window":
            return "the rules stay when flannel stops; new connections are lost for a moment when it starts"
        case "unknown":
            return _why_unknown(table, release, flannel, certainty)


def _why_unknown(table: ReleaseTable, release: Release | Build | None, flannel: Flannel | None, certainty: str) -> str:
    if flannel is not None and flannel.number > _NEWEST_READ:
        return f"flannel {flannel} is newer than what was read (0.28.9): drill it, or ask for an update of this tool"
    if flannel is not None and flannel.number < _CHAIN_FROM:
        return f"flannel {flannel} is older than what was studied (0.20.1, the first with FLANNEL-POSTRTG): drill it"
    if flannel is not None and certainty == "at-least":
        return f"only a lower bound is known for {release}: flannel {flannel} or later, on both sides of the change"
    known = table.line(release) if release is not None else []
    if not known or release is None:
        return f"no release of this line is known; {RULE}"
    if isinstance(release, Build):
        below = [one for one in known if one.release.patch < release.patch]
        above = [one for one in known if one.release.patch >= release.patch]
        what = "is a release candidate or a build between releases, and not in the table"
    else:
        below = [one for one in known if one.release < release]
        above = [one for one in known if one.release > release]
        what = "is not in the table"
        ended = table.end(release)
        if ended is not None and ended.last is not None and release > ended.last:
            what += f"; {release.line} ended with {ended.last}"
    sides = [f"{side} {one.release} with flannel {one.flannel}" for side, one in _neighbours(below, above)]
    return f"{release} {what} (known: {'; '.join(sides)}); {RULE}"


def _neighbours(below: list[Shipped], above: list[Shipped]) -> list[tuple[str, Shipped]]:
    found = [("before it", below[-1])] if below else []
    return found + ([("after it", above[0])] if above else [])


def _findings(flannel: Flannel | None, status: Status, where: Setting, workload: Workload) -> tuple[AdviceFinding, ...]:
    if flannel is None or not _CHAIN_FROM <= flannel.number <= _NEWEST_READ:
        return ()  # the source of this release was not read
    found: list[AdviceFinding] = []
    if status == "affected":
        found.append(_removed_at_exit(where, workload))
    if not workload.nftables:
        found.append(_flushed_at_start(where, workload, replayed=flannel.number >= _FIXED))
    if flannel.number >= _REMOVES_FROM and where != "k3s":
        found.append(
            AdviceFinding(
                "nftables-no-resync",
                "with EnableNFTables, rules that another program removes stay removed",
                "until the next restart of flannel",
                "in nftables mode flannel writes its tables once and never looks again; iptables mode checks every 5 s",
            )
        )
    found.append(
        AdviceFinding(
            "poisoned-flows",
            "flows that began in the gap stay broken after the rules are back",
            "up to 120 s for TCP (SYN_SENT), as long as it keeps sending for UDP",
            "conntrack has bound them without NAT, and every later packet of the flow uses that entry",
            ("https://github.com/kubernetes/kubernetes/issues/122740",),
        )
    )
    return tuple(found) if status != "unknown" else tuple(found[:-1])


def _removed_at_exit(where: Setting, workload: Workload) -> AdviceFinding:
    why = (
        "on SIGTERM flannel waits 1 s and then deletes its masquerade and forward rules; the next one writes them again"
    )
    if workload.grace == 0 and where != "k3s":
        why += (
            f"; the pods of {workload.daemon_set} have a grace period of 0 (the kubelet allows 2 s), so each restart "
            "is a race"
        )
    if where == "k3s":
        why += "; k3s runs it in its own process and may end before the rules are gone, so each restart is a race"
    issues = (RKE2_ISSUE, FLANNEL_ISSUE) if where == "rke2" else (FLANNEL_ISSUE,)
    return AdviceFinding(
        "removed-at-exit",
        "the rules are removed when flannel stops",
        "from its stop until its successor is up: seconds, or as long as it stays away (the real flanneld 0.26.7: "
        "2,487 of 16,776 new connections lost in five restarts)",
        why,
        (*issues, FLANNEL_FIX),
    )


def _flushed_at_start(where: Setting, workload: Workload, *, replayed: bool) -> AdviceFinding:
    cost = "48-115 ms with iptables-nft; with iptables-legacy 32-44 ms on small tables, 630-920 ms with 5,000 Services"
    if not replayed:
        cost += " (measured with the command sequence of 0.28; this version was not replayed)"
    else:
        cost += "; the real flanneld 0.28.9 lost 309 of 10,977 new connections in five restarts"
    first = where != "k3s" and not workload.keeps_run_flannel
    why = (
        "flannel clears FLANNEL-POSTRTG before it checks its rules one by one and restores them: "
        f"{21 if first else 18} commands run while the chain is empty"
    )
    if first:
        why += (
            f". {workload.daemon_set} mounts no /run/flannel, so every start is a first start: flannel has no subnet "
            "file, takes its subnet for changed and deletes the jump in POSTROUTING too (3 of the 21)"
        )
    return AdviceFinding("flushed-at-start", "the rules are flushed when flannel starts", cost, why, (FLANNEL_ISSUE,))


def _upgrade(table: ReleaseTable, release: Release | Build | None, flannel: Flannel | None, status: Status) -> Upgrade:
    if release is None:
        if flannel is not None and status == "affected":
            return Upgrade("available", "v0.27.0", text="flannel v0.27.0 and later keeps its rules at exit")
        return Upgrade("here" if status == "window" else "unknown")
    line = table.line(release)
    newest = str(line[-1].release) if line else ""
    end = table.end(release)
    ended = end.date if end else ""
    finished = f"; {release.line} is finished upstream since {ended} and gets no more releases" if end else ""
    if status == "window":
        return Upgrade("here", str(release), newest, f"the window at start is in every known release{finished}", ended)
    later = next((one for one in line if _after(one.release, release) and one.flannel.number >= _FIXED), None)
    if later is not None:
        text = f"{later.release}, the nearest, ships flannel {later.flannel}, which keeps its rules at exit{finished}"
        return Upgrade("available", str(later.release), newest, text, ended)
    if end is not None:
        last = f"ended with {end.last}" if end.last else f"is finished upstream since {end.date}"
        none = f"{release.line} {last}: no release of it is known to keep the rules; move to a newer minor line"
        return Upgrade("none", "", newest, none, ended)
    if not line:
        return Upgrade("unknown", "", "", f"no release of {release.line} is known")
    return Upgrade(
        "not-known",
        "",
        newest,
        f"no known release of {release.line} (up to {newest}) is sure to keep its rules at exit",
    )


def _after(one: Release, release: Release | Build) -> bool:
    return one.patch >= release.patch if isinstance(release, Build) else one > release
