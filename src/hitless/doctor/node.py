"""A node's diagnosis: release and cost, egress now, backends, guard, kernel and system, and what to type next.

Promise: it reads rules, /proc, the guard's state and program versions; nothing is changed. Ten seconds at most.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hitless import __version__
from hitless.advice import judgement, releases
from hitless.advice import nodes as this_node
from hitless.doctor import machine
from hitless.doctor.findings import Diagnosis, DoctorFinding, State, checked
from hitless.errors import HitlessError, InputError
from hitless.guard import status as guard_status
from hitless.kernel import nftables, xtables
from hitless.kernel.namespaces import HERE
from hitless.model.events import Note, RuleState
from hitless.model.families import Family, Network, family_of
from hitless.model.reading import network as read_network
from hitless.model.rules import Ruleset, Table
from hitless.watch import DEFAULT, Watch, WatchOptions, load, shipped
from hitless.watch.networks import better, pod_networks

__all__ = ["GUARD_DIR", "diagnose_node"]

GUARD_DIR = Path("/run/hitless-guard")
_COST = {
    "affected": "a restart takes every pod's new connections to the outside away until flannel is up again",
    "window": "a restart empties flannel's rules for a moment; connections begun in it stay broken for longer",
}


def diagnose_node(networks: Sequence[Network] = (), profile: str = "", run_dir: Path = GUARD_DIR) -> Diagnosis:
    """Everything about this node. ``networks`` and ``profile``: for what the rules do not tell."""
    findings = checked("system", "this machine", machine.system)
    findings += checked("rights", "permissions", machine.rights)
    release = checked("release", "release and its cost", _release)
    whole = _ruleset()
    name = profile or _profile(whole)
    egress = checked("egress", "egress now", lambda: _egress(name, networks, whole), essential=True)
    found = networks or tuple(pod_networks(whole, load(name)))
    guard = checked("guard", "guard", lambda: _guard(run_dir, release, egress))
    findings += [*bridged(release, guard), *egress]
    if whole.tables:
        nft = Ruleset(tuple(one for one in whole.tables if not one.legacy))
        legacy = Ruleset(tuple(one for one in whole.tables if one.legacy))
        findings += checked("backends", "rule backends", lambda: machine.backends(nft, legacy))
    findings += guard
    families = tuple(family for family in Family if any(family_of(one) is family for one in found))
    findings += checked("forwarding", "forwarding", lambda: machine.forwarding(families))
    findings += checked("connections", "connection table", machine.connections)
    findings += checked("clock", "clock", machine.clock)
    following = _next({one.id: one for one in findings})
    return Diagnosis.of(f"node {os.uname().nodename}", findings, following, __version__, summary(findings))


def bridged(release: Sequence[DoctorFinding], guard: Sequence[DoctorFinding]) -> list[DoctorFinding]:
    """The release's finding, as it is with this guard: what a standby bridges is no problem of the node any more."""
    if any(one.state != "ok" or one.code != "protected" for one in guard):
        return list(release)
    more = "; the guard's standby translates them meanwhile (FORWARD rules it cannot bridge: see its status)"
    return [
        msgspec.structs.replace(one, state="note", text=one.text + more) if one.state in ("problem", "note") else one
        for one in release
    ]


def summary(findings: Sequence[DoctorFinding]) -> str:
    """Whether this node is affected, in one sentence: now, and at the agent's next restart."""
    of = {one.id: {each.state for each in findings if each.id == one.id} for one in findings}
    egress, release = of.get("egress", {"unknown"}), of.get("release", {"unknown"})
    now = (
        "pods are cut off from the outside now" if "problem" in egress
        else "it is not known whether pods get out now" if "unknown" in egress
        else "pods get out now"
    )  # fmt: skip
    if any(one.id == "guard" and one.state == "ok" and one.code == "protected" for one in findings):
        return f"{now}; a restart of the agent is bridged by the guard's standby"
    if release & {"problem", "note"}:
        return f"{now}; affected: a restart of the agent loses new connections, and no guard bridges it"
    return f"{now}; what a restart of the agent would cost is not known" if "unknown" in release else now


def _release() -> DoctorFinding:
    title = "release and its cost"
    try:
        here = this_node.installed_versions()
    except InputError as error:
        return DoctorFinding(
            "release", title, "unknown", error.message, "hitless advise --version RELEASE", essential=True
        )
    found = judgement.advise(
        releases.packaged(), here.release, running=here.flannel, running_source=here.flannel_source
    )
    what = (
        f"{found.subject}{f', flannel {found.flannel}' if found.flannel and found.flannel not in found.subject else ''}"
    )
    more = f"hitless advise --version {here.release}" if here.release else f"hitless advise --flannel {found.flannel}"
    if found.status == "unknown":
        return DoctorFinding("release", title, "unknown", f"{what}: {found.summary}", more, essential=True)
    state: State = "problem" if found.status == "affected" else "note"
    return DoctorFinding("release", title, state, f"{what}: {_COST[found.status]}", more)


def _ruleset() -> Ruleset:
    """What can be read of both backends; nothing where it cannot."""
    tables: list[Table] = []
    for read in (nftables.read_ruleset, xtables.read_ruleset):
        try:
            tables += read(HERE).tables
        except HitlessError:
            continue  # the egress check says why
    return Ruleset(tuple(tables))


def _profile(ruleset: Ruleset) -> str:
    """The default profile, or the first whose chains stand here while the default's do not."""
    default = load(DEFAULT)
    if better(ruleset, default):
        return next((name for name in shipped() if not better(ruleset, load(name))), DEFAULT)
    return DEFAULT


def _egress(profile: str, networks: Sequence[Network], whole: Ruleset) -> list[DoctorFinding]:
    found: list[DoctorFinding] = []
    notes: list[str] = []
    with Watch(WatchOptions(load(profile), networks=tuple(networks), urgent=False)) as watch:
        for event in watch.once():
            if isinstance(event, RuleState):
                found.append(_of_state(event, profile))
            elif isinstance(event, Note) and event.level != "info":
                notes.append(event.text)
    if not found:
        if empty := _empty(whole, profile):
            text = f"{empty} stands and is empty: new connections of pods leave with the pod's own address, unanswered"
            command = f"hitless watch --profile {profile} --network CIDR"
            return [DoctorFinding("egress", "egress now", "problem", text, command, essential=True)]
        why = "; ".join(notes) or "no rules here name a pod network"
        return [DoctorFinding("egress", "egress now", "unknown", why, "hitless doctor --network CIDR", essential=True)]
    return found


def _empty(ruleset: Ruleset, profile: str) -> str:
    """The agent's own chain, where it is there without a rule and none with rules is: what a restart leaves behind."""
    named = [
        (table, chain)
        for table in ruleset.tables
        for interest in load(profile).tables
        if interest.name == table.name
        for chain in interest.networks_from
        if chain in table.chains
    ]
    if not named or any(table.chains[chain].rules for table, chain in named):
        return ""
    return ", ".join(f"{table.family} {table.name} {chain}" for table, chain in named)


def _of_state(event: RuleState, profile: str) -> DoctorFinding:
    title = "egress now"
    text = f"{event.network}: {event.state.replace('_', ' ')}: {event.reason}"
    if event.partly:
        return DoctorFinding("egress", title, "note", f"{text}; {event.partly}")
    if event.state == "carried":
        return DoctorFinding("egress", title, "ok", text)
    command = f"hitless watch --profile {profile} --network {read_network(event.network, where='--network')}"
    state: State = "problem" if event.state == "not_carried" else "unknown"
    return DoctorFinding("egress", title, state, text, command, essential=True)


def _guard(run_dir: Path, release: Sequence[DoctorFinding], egress: Sequence[DoctorFinding]) -> DoctorFinding:
    status = guard_status.read(run_dir)
    text = status.text().splitlines()[0]
    if status.verdict == "protected":
        return DoctorFinding("guard", "guard", "ok", text, code="protected")
    if status.verdict == "unknown":
        return DoctorFinding("guard", "guard", "problem", text, "hitless guard status")
    if any(one.state in ("problem", "note") for one in release) or any(one.state == "ok" for one in egress):
        return DoctorFinding("guard", "guard", "note", f"{text}: a restart is not bridged", "hitless guard --observe")
    return DoctorFinding("guard", "guard", "ok", "no guard runs, and nothing that it could protect was found")


def _next(found: dict[str, DoctorFinding]) -> tuple[str, str]:
    """The command that brings the most now, and why."""
    if found["rights"].state == "unknown":
        return found["rights"].command, "the rules can only be read by root"
    egress, release, guard = found["egress"], found["release"], found["guard"]
    if egress.state == "problem":
        return egress.command, "pods are cut off now: this shows which rule, and who changes it"
    if release.state == "unknown" and egress.state == "unknown":
        return (
            "hitless drill",
            "no network agent is here; this shows in a lab what a restart costs (a minute)",
        )
    if guard.command:
        return (
            guard.command,
            "runs beside your agent, changes nothing, and says whether the guard could protect the node",
        )
    return "hitless node-drill --help", "everything is in place: a drill proves it"
