"""Advice: what a restart costs with this flannel, and what helps. Pure.

Problem: an operator asks "does my release have this, and where is it fixed?". Promise: the answer is a function of
the flannel version (found in the tables, or given), with its reason and the upstream issue; an unknown version is
answered "unknown" with the rule that decides it, never with a guess from its neighbours. The costs are measurements
(replayed command sequences on a real kernel), the rules come from flannel's sources; both are named in each finding.
It never looks at a machine: that is ``node`` and the cluster. Next stage: ``hitless.cli.advise``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from hitless.cluster.releases import Shipped, Table
from hitless.cluster.versions import Flannel, Release

__all__ = ["Advice", "Finding", "Remedy", "Status", "Upgrade", "advise"]

Status = Literal["affected", "window", "unknown"]
"""``affected``: rules are removed when flannel stops, egress is gone until it is back. ``window``: only the flush at
start. ``unknown``: cannot tell."""

Setting = Literal["rke2", "k3s", "flannel"]
"""How flannel runs: Canal's pod on RKE2, inside the k3s process, or a DaemonSet of its own."""

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


class Finding(msgspec.Struct, frozen=True):
    """Something that a restart does: ``cost`` in time, ``why`` in flannel's behaviour, and the upstream threads."""

    id: str
    title: str
    cost: str
    why: str
    issues: tuple[str, ...] = ()


class Remedy(msgspec.Struct, frozen=True):
    """Something that helps; ``snippet`` can be applied as it is (after a look)."""

    id: str
    title: str
    text: str
    snippet: str = ""


class Upgrade(msgspec.Struct, frozen=True):
    """The nearest release of the same minor line that keeps the rules at exit.

    ``none``: the line has ended without one. ``not-known``: none among the known releases. ``here``: this one does.
    """

    state: Literal["here", "available", "none", "not-known", "unknown"]
    version: str = ""
    newest_known: str = ""
    text: str = ""


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
    findings: tuple[Finding, ...] = ()
    upgrade: Upgrade
    remedies: tuple[Remedy, ...] = ()


def advise(
    table: Table,
    release: Release | None,
    *,
    running: Flannel | None = None,
    running_source: str = "",
    setting: Setting | None = None,
    nodes: tuple[str, ...] = (),
) -> Advice:
    """The advice for a release, for a flannel that was seen running (which wins over the table), or for both."""
    if release is None and running is None:
        raise ValueError("advise needs a release or a flannel version")
    shipped = table.find(release) if release is not None else None
    where: Setting = setting or (release.product if release is not None else "flannel")
    flannel = running or (shipped.flannel if shipped else None)
    subject = str(release) if release is not None else f"flannel {running}"
    if running is not None:
        certainty: Literal["exact", "at-least", "running", "given", "unknown"]
        certainty = "running" if running_source else "given"
    else:
        certainty = shipped.certainty if shipped else "unknown"
    status = _status(flannel, lower_bound=certainty == "at-least")
    return Advice(
        status=status,
        subject=subject,
        nodes=nodes,
        setting=where,
        flannel=str(flannel) if flannel else "",
        certainty=certainty,
        source=running_source if running is not None else (shipped.source if shipped else ""),
        summary=_summary(table, release, flannel, status, certainty),
        findings=_findings(flannel, status, where),
        upgrade=_upgrade(table, release, flannel, status),
        remedies=_remedies(table, where, status),
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


def _summary(table: Table, release: Release | None, flannel: Flannel | None, status: Status, certainty: str) -> str:
    match status:
        case "affected":
            return "pods on a node lose new connections to the outside from flannel's stop until it is up again"
        case "window":
            return "the rules stay when flannel stops; new connections are lost for a moment when it starts"
        case "unknown":
            return _why_unknown(table, release, flannel, certainty)


def _why_unknown(table: Table, release: Release | None, flannel: Flannel | None, certainty: str) -> str:
    if flannel is not None and flannel.number > _NEWEST_READ:
        return f"flannel {flannel} is newer than what was read (0.28.9): drill it, or ask for an update of this tool"
    if flannel is not None and flannel.number < _CHAIN_FROM:
        return f"flannel {flannel} is older than what was studied (0.20.1, the first with FLANNEL-POSTRTG): drill it"
    if flannel is not None and certainty == "at-least":
        return f"only a lower bound is known for {release}: flannel {flannel} or later, on both sides of the change"
    known = table.line(release) if release is not None else []
    if not known or release is None:
        return f"no release of this line is known; {RULE}"
    below = [one for one in known if one.release < release]
    above = [one for one in known if one.release > release]
    sides = [f"{side} {one.release} with flannel {one.flannel}" for side, one in _neighbours(below, above)]
    return f"{release} is not in the table (known: {'; '.join(sides)}); {RULE}"


def _neighbours(below: list[Shipped], above: list[Shipped]) -> list[tuple[str, Shipped]]:
    found = [("before it", below[-1])] if below else []
    return found + ([("after it", above[0])] if above else [])


def _findings(flannel: Flannel | None, status: Status, where: Setting) -> tuple[Finding, ...]:
    if flannel is None or not _CHAIN_FROM <= flannel.number <= _NEWEST_READ:
        return ()  # nobody has read what this one does
    found: list[Finding] = []
    if status == "affected":
        found.append(_removed_at_exit(where))
    found.append(_flushed_at_start(where, replayed=flannel.number >= _FIXED))
    if flannel.number >= _REMOVES_FROM and where != "k3s":
        found.append(
            Finding(
                "nftables-no-resync",
                "with EnableNFTables, rules that somebody else removes stay removed",
                "until the next restart of flannel",
                "in nftables mode flannel writes its tables once and never looks again; iptables mode checks every 5 s",
            )
        )
    found.append(
        Finding(
            "poisoned-flows",
            "flows that began in the gap stay broken after the rules are back",
            "up to 120 s for TCP (SYN_SENT), as long as it keeps sending for UDP",
            "conntrack has bound them without NAT, and every later packet of the flow uses that entry",
            ("https://github.com/kubernetes/kubernetes/issues/122740",),
        )
    )
    return tuple(found) if status != "unknown" else tuple(found[:-1])


def _removed_at_exit(where: Setting) -> Finding:
    why = (
        "on SIGTERM flannel waits 1 s and then deletes its masquerade and forward rules; the next one writes them again"
    )
    if where == "rke2":
        why += "; Canal's pod has a grace period of 0 (the kubelet allows 2 s), so each restart is a race"
    if where == "k3s":
        why += "; k3s runs it in its own process and may end before the rules are gone, so each restart is a race"
    issues = (RKE2_ISSUE, FLANNEL_ISSUE) if where == "rke2" else (FLANNEL_ISSUE,)
    return Finding(
        "removed-at-exit",
        "the rules are removed when flannel stops",
        "from its stop until its successor is up: seconds, or as long as it stays away",
        why,
        (*issues, FLANNEL_FIX),
    )


def _flushed_at_start(where: Setting, *, replayed: bool) -> Finding:
    cost = "48-115 ms with iptables-nft; with iptables-legacy 32-44 ms on small tables, 630-920 ms with 5,000 Services"
    if not replayed:
        cost += " (measured with the command sequence of 0.28; this version was not replayed)"
    commands = 21 if where == "rke2" else 18
    why = (
        "flannel clears FLANNEL-POSTRTG before it checks its rules one by one and restores them: "
        f"{commands} commands run while the chain is empty"
    )
    if where == "rke2":
        why += (
            ". Canal mounts no /run/flannel, so flannel forgets its subnet file, takes its subnet for changed and "
            "deletes the jump in POSTROUTING too (3 of the 21)"
        )
    return Finding("flushed-at-start", "the rules are flushed when flannel starts", cost, why, (FLANNEL_ISSUE,))


def _upgrade(table: Table, release: Release | None, flannel: Flannel | None, status: Status) -> Upgrade:
    if release is None:
        if flannel is not None and status == "affected":
            return Upgrade("available", "v0.27.0", text="flannel v0.27.0 and later keeps its rules at exit")
        return Upgrade("here" if status == "window" else "unknown")
    line = table.line(release)
    newest = str(line[-1].release) if line else ""
    later = next((one for one in line if one.release > release and one.flannel.number >= _FIXED), None)
    if status == "window":
        return Upgrade("here", str(release), newest, "the window at start is in every known release")
    if later is not None:
        return Upgrade(
            "available",
            str(later.release),
            newest,
            f"{later.release}, the nearest, ships flannel {later.flannel}, which keeps its rules at exit",
        )
    last = table.ended.get((release.product, release.line))
    if last is not None:
        return Upgrade("none", "", newest, f"{release.line} ended with {last}: no release of it keeps the rules")
    if not line:
        return Upgrade("unknown", "", "", f"no release of {release.line} is known")
    return Upgrade(
        "not-known",
        "",
        newest,
        f"no known release of {release.line} (up to {newest}) is sure to keep its rules at exit",
    )


_GUARD = Remedy(
    "guard",
    "run the guard on every node",
    "a second NAT chain carries new flows while flannel's is empty, for every version and both backends; "
    "it covers the window at start too, which no release closes",
    "helm upgrade --install hitless deploy/chart \\\n  --namespace hitless-system --create-namespace",
)


def _remedies(table: Table, where: Setting, status: Status) -> tuple[Remedy, ...]:
    found = [_GUARD]
    if where == "rke2" and status != "unknown":
        if status == "affected":
            fixed = [one for one in table.images() if one.number[:2] == _FIXED[:2]]
            found.append(_image_tag(fixed[-1]))
        found.append(_run_flannel())
    found.append(_drill(where))
    return tuple(found)


def _drill(where: Setting) -> Remedy:
    text = "the cost depends on the node's rules and load: a drill shows gaps, lost connections and poisoned flows"
    command = "hitless drill --cluster --nodes 1 --rounds 3"
    if where == "k3s":
        text += ". Flannel runs inside the k3s process, so on the node; this restarts K3s there (k3s-agent on agents)"
        command = "hitless node-drill --restart-unit k3s --to https://example.org/"
    return Remedy("drill", "measure it on one node", text, command)


def _image_tag(flannel: Flannel) -> Remedy:
    return Remedy(
        "image-tag",
        "let RKE2 run a flannel that keeps its rules",
        f"a HelmChartConfig overrides the image of the rke2-canal chart; {flannel} is the newest hardened 0.27 in the "
        "table. Not a combination that upstream tests with your release: try it on one cluster first",
        "apiVersion: helm.cattle.io/v1\n"
        "kind: HelmChartConfig\n"
        "metadata:\n"
        "  name: rke2-canal\n"
        "  namespace: kube-system\n"
        "spec:\n"
        "  valuesContent: |-\n"
        "    flannel:\n"
        "      image:\n"
        f"        tag: {flannel}\n",
    )


def _run_flannel() -> Remedy:
    return Remedy(
        "run-flannel",
        "keep /run/flannel on the host",
        "with its subnet file kept, flannel knows that its subnet did not change and leaves the jump in POSTROUTING "
        "alone: a shorter window, not none. The chart has no value for it, and its next upgrade takes the patch away",
        "kubectl -n kube-system patch daemonset rke2-canal --patch '\n"
        "spec:\n"
        "  template:\n"
        "    spec:\n"
        "      volumes:\n"
        "      - name: run-flannel\n"
        "        hostPath: {path: /run/flannel, type: DirectoryOrCreate}\n"
        "      containers:\n"
        "      - name: kube-flannel\n"
        "        volumeMounts:\n"
        "        - {name: run-flannel, mountPath: /run/flannel}\n"
        "'",
    )
